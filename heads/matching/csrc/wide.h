// Which token is most like each prototype of any values: 16-bit products, 32-bit sums.
//
// Prototypes come in panels of 16, and within a panel for every two dimensions 16 pairs, so that one
// broadcast pair of a token meets 8 prototypes in a register.

enum { ROWS = 6, PANEL = 16 };  // 6 tokens x 16 prototypes: 12 of the 16 registers hold sums

INLINE void tile(const int16_t *const row[ROWS], const int16_t *panel, int64_t pairs, __m256i sum[ROWS][2]) {
    for (int m = 0; m < ROWS; m++) sum[m][0] = sum[m][1] = _mm256_setzero_si256();
    for (int64_t s = 0; s < pairs; s++) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(panel + 32 * s));
        __m256i b = _mm256_loadu_si256((const __m256i *)(panel + 32 * s + 16));
#pragma GCC unroll 6
        for (int m = 0; m < ROWS; m++) {
            int32_t pair;
            memcpy(&pair, row[m] + 2 * s, sizeof pair);
            __m256i token = _mm256_set1_epi32(pair);
            sum[m][0] = _mm256_add_epi32(sum[m][0], _mm256_madd_epi16(a, token));
            sum[m][1] = _mm256_add_epi32(sum[m][1], _mm256_madd_epi16(b, token));
            // Without this gcc loads all six tokens first and spills the sums: half the speed.
            __asm__("" : "+x"(sum[m][0]), "+x"(sum[m][1]));
        }
    }
}

// winner[p] = which of `count` tokens (rows of `width` int16) has the largest gain * sum with prototype p.
static void search_wide(const int16_t *codes, int64_t width, int64_t count, const float *gain, const int16_t *packed,
                        int64_t P, int32_t *winner) {
    for (int64_t p = 0; p < P; p += PANEL) {
        __m256 best[2] = {_mm256_set1_ps(-INFINITY), _mm256_set1_ps(-INFINITY)};
        __m256i where[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        for (int64_t n = 0; n < count; n += ROWS) {
            const int16_t *row[ROWS];
            __m256i sum[ROWS][2];
            for (int m = 0; m < ROWS; m++) row[m] = codes + width * (n + m < count ? n + m : count - 1);
            tile(row, packed + p * width, width / 2, sum);
            for (int m = 0; m < ROWS && n + m < count; m++)
                for (int half = 0; half < 2; half++) {
                    __m256 value = _mm256_mul_ps(_mm256_cvtepi32_ps(sum[m][half]), _mm256_set1_ps(gain[n + m]));
                    __m256 better = _mm256_cmp_ps(value, best[half], _CMP_GT_OQ);
                    best[half] = _mm256_max_ps(value, best[half]);
                    where[half] = _mm256_blendv_epi8(where[half], _mm256_set1_epi32(n + m),
                                                     _mm256_castps_si256(better));
                }
        }
        _mm256_storeu_si256((__m256i *)(winner + p), where[0]);
        _mm256_storeu_si256((__m256i *)(winner + p + 8), where[1]);
    }
}
