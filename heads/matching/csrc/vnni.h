// `search_wide` for processors with AVX-512 VNNI: sixteen prototypes a register, and one instruction where
// AVX2 has four. The sums are whole numbers and the comparisons the same, so the winners are, too.

#if defined(__clang__) || __GNUC__ >= 8

#define VNNI __attribute__((target("avx512f,avx512bw,avx512vnni")))

static int has_vnni(void) { return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni"); }

// A product takes 5 cycles and two begin in each: 12 sums, of 6 tokens and two panels, keep both units busy.
VNNI INLINE void tile_vnni(const int16_t *const row[ROWS], const int16_t *const panel[2], int64_t pairs,
                           __m512i sum[ROWS][2]) {
    for (int m = 0; m < ROWS; m++) sum[m][0] = sum[m][1] = _mm512_setzero_si512();
    for (int64_t s = 0; s < pairs; s++) {
        __m512i a = _mm512_loadu_si512(panel[0] + 32 * s), b = _mm512_loadu_si512(panel[1] + 32 * s);
#pragma GCC unroll 6
        for (int m = 0; m < ROWS; m++) {
            int32_t pair;
            memcpy(&pair, row[m] + 2 * s, sizeof pair);
            __m512i token = _mm512_set1_epi32(pair);
            sum[m][0] = _mm512_dpwssd_epi32(sum[m][0], a, token);
            sum[m][1] = _mm512_dpwssd_epi32(sum[m][1], b, token);
            __asm__("" : "+v"(sum[m][0]), "+v"(sum[m][1]));  // else gcc copies each sum before it adds
        }
    }
}

VNNI static void search_vnni(const int16_t *codes, int64_t width, int64_t count, const float *gain,
                             const int16_t *packed, int64_t P, int32_t *winner) {
    for (int64_t p = 0; p < P; p += 2 * PANEL) {
        int halves = p + PANEL < P ? 2 : 1;
        const int16_t *panel[2] = {packed + p * width, packed + (p + (halves - 1) * PANEL) * width};
        __m512 best[2] = {_mm512_set1_ps(-INFINITY), _mm512_set1_ps(-INFINITY)};
        __m512i where[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
        for (int64_t n = 0; n < count; n += ROWS) {
            const int16_t *row[ROWS];
            __m512i sum[ROWS][2];
            for (int m = 0; m < ROWS; m++) row[m] = codes + width * (n + m < count ? n + m : count - 1);
            tile_vnni(row, panel, width / 2, sum);
            for (int m = 0; m < ROWS && n + m < count; m++)
                for (int half = 0; half < 2; half++) {
                    __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[m][half]), _mm512_set1_ps(gain[n + m]));
                    __mmask16 better = _mm512_cmp_ps_mask(value, best[half], _CMP_GT_OQ);
                    best[half] = _mm512_mask_mov_ps(best[half], better, value);
                    where[half] = _mm512_mask_mov_epi32(where[half], better, _mm512_set1_epi32(n + m));
                }
        }
        for (int half = 0; half < halves; half++) _mm512_storeu_si512(winner + p + PANEL * half, where[half]);
    }
}

#else  // a compiler that does not know these instructions

static int has_vnni(void) { return 0; }
#define search_vnni search_wide

#endif
