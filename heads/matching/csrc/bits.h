// Which token is most like each prototype of -1 and +1: additions alone, no products.
//
// For a block of 32 tokens and 6 neighbouring dimensions there are only 64 sums of plus or minus the
// six values. They are tabulated once, and every prototype then adds up one entry for each of its
// D/6 groups ("the method of four Russians"): on AVX2 twice as fast as 8-bit products.
// Tokens come at one common length, in 16 bits, so that no sum overflows and sums compare as cosines.

enum { BLOCK = 32, GROUP = 6, ENTRIES = 1 << GROUP, LINE = BLOCK * sizeof(int16_t) };
enum { CHUNK = 5 };      // groups at a time: their tables (20 KB) must stay in the first-level cache,
enum { SHARE = 2048 };   // prototypes at a time: their sums (128 KB) in the second

typedef struct {
    int16_t *columns;  // a block of tokens, transposed: dims x BLOCK
    char *table;       // CHUNK x ENTRIES x BLOCK int16
    __m256i *sums;     // SHARE x BLOCK int16
    __m256i *best;     // P x 16 int16: the largest sum of each of 16 lanes,
    __m256i *where;    // and the half block it came from
} Bits;

// 8 tokens x 8 dimensions of rows to columns.
INLINE void transpose8(const int16_t *const row[8], int64_t d, int16_t *columns, int lane) {
    __m128i r[8], s[8];
    for (int i = 0; i < 8; i++) r[i] = _mm_loadu_si128((const __m128i *)(row[i] + d));
    for (int i = 0; i < 4; i++) {
        s[2 * i] = _mm_unpacklo_epi16(r[i], r[i + 4]);
        s[2 * i + 1] = _mm_unpackhi_epi16(r[i], r[i + 4]);
    }
    for (int i = 0; i < 4; i++) {
        r[2 * i] = _mm_unpacklo_epi16(s[i], s[i + 4]);
        r[2 * i + 1] = _mm_unpackhi_epi16(s[i], s[i + 4]);
    }
    for (int i = 0; i < 4; i++) {
        _mm_storeu_si128((__m128i *)(columns + (d + 2 * i) * BLOCK + lane), _mm_unpacklo_epi16(r[i], r[i + 4]));
        _mm_storeu_si128((__m128i *)(columns + (d + 2 * i + 1) * BLOCK + lane), _mm_unpackhi_epi16(r[i], r[i + 4]));
    }
}

// Tokens from..from+31 to columns; past the last token, that one again.
INLINE void transpose_block(const int16_t *codes, int64_t width, int64_t from, int64_t count, int16_t *columns) {
    for (int lane = 0; lane < BLOCK; lane += 8) {
        const int16_t *row[8];
        for (int i = 0; i < 8; i++) {
            int64_t n = from + lane + i;
            row[i] = codes + (n < count ? n : count - 1) * width;
        }
        for (int64_t d = 0; d < width; d += 8) transpose8(row, d, columns, lane);
    }
}

// All sums of plus or minus GROUP columns; bit i of the entry's number is the sign of column i.
INLINE void tabulate(const int16_t *columns, char *table) {
    for (int half = 0; half < 2; half++) {
        __m256i twice[GROUP], all_minus = _mm256_setzero_si256();
        for (int i = 0; i < GROUP; i++) {
            __m256i column = _mm256_load_si256((const __m256i *)(columns + i * BLOCK + 16 * half));
            all_minus = _mm256_sub_epi16(all_minus, column);
            twice[i] = _mm256_add_epi16(column, column);
        }
        __m256i *entry = (__m256i *)table + half;
        entry[0] = all_minus;
#pragma GCC unroll 6
        for (int i = 0; i < GROUP; i++)
#pragma GCC unroll 32
            for (int e = 0; e < 1 << i; e++)
                entry[2 * (e + (1 << i))] = _mm256_add_epi16(entry[2 * e], twice[i]);
    }
}

INLINE void add_chunk(const char *table, const uint16_t *entries, int64_t P, __m256i *sums) {
    for (int64_t p = 0; p < P; p++, entries += CHUNK) {
        __m256i a = sums[2 * p], b = sums[2 * p + 1];
#pragma GCC unroll 5
        for (int g = 0; g < CHUNK; g++) {
            const __m256i *entry = (const __m256i *)(table + g * ENTRIES * LINE + (uint64_t)entries[g]);
            a = _mm256_add_epi16(a, entry[0]);
            b = _mm256_add_epi16(b, entry[1]);
        }
        sums[2 * p] = a, sums[2 * p + 1] = b;
    }
}

INLINE void keep_best(const __m256i *sums, int64_t P, int64_t block, __m256i *best, __m256i *where) {
    for (int64_t p = 0; p < P; p++)
        for (int half = 0; half < 2; half++) {
            __m256i sum = sums[2 * p + half], better = _mm256_cmpgt_epi16(sum, best[p]);
            best[p] = _mm256_max_epi16(best[p], sum);
            where[p] = _mm256_blendv_epi8(where[p], _mm256_set1_epi16(2 * block + half), better);
        }
}

// The sums of one block of tokens with prototypes first..first+P of `all`.
INLINE void add_up(Bits work, const uint16_t *entries, int64_t groups, int64_t all, int64_t first, int64_t P) {
    memset(work.sums, 0, P * 2 * sizeof(__m256i));
    for (int64_t g = 0; g < groups; g += CHUNK) {
        for (int i = 0; i < CHUNK; i++)
            tabulate(work.columns + (g + i) * GROUP * BLOCK, work.table + i * ENTRIES * LINE);
        add_chunk(work.table, entries + g * all + first * CHUNK, P, work.sums);
    }
}

INLINE int32_t best_lane(__m256i best, __m256i where) {
    int16_t value[16], half[16];
    _mm256_storeu_si256((__m256i *)value, best);
    _mm256_storeu_si256((__m256i *)half, where);
    int lane = 0;
    for (int i = 1; i < 16; i++)
        if (value[i] > value[lane] || (value[i] == value[lane] && half[i] < half[lane])) lane = i;
    return half[lane] * 16 + lane;
}

// winner[p] = which of `count` tokens (rows of `width` int16) has the largest sum with prototype p.
// `entries` are the places in the tables of each prototype: groups / CHUNK x P x CHUNK.
static void search_bits(Bits work, const int16_t *codes, int64_t width, int64_t count, const uint16_t *entries,
                        int64_t groups, int64_t P, int32_t *winner) {
    for (int64_t p = 0; p < P; p++) {
        work.best[p] = _mm256_set1_epi16(INT16_MIN);
        work.where[p] = _mm256_setzero_si256();
    }
    for (int64_t from = 0; from < count; from += BLOCK) {
        transpose_block(codes, width, from, count, work.columns);
        for (int64_t p = 0; p < P; p += SHARE) {
            int64_t share = P - p < SHARE ? P - p : SHARE;
            add_up(work, entries, groups, P, p, share);
            keep_best(work.sums, share, from / BLOCK, work.best + p, work.where + p);
        }
    }
    // A tie goes to the earlier token, so never to the copies of the last one behind it.
    for (int64_t p = 0; p < P; p++) winner[p] = best_lane(work.best[p], work.where[p]);
}

// Prototypes whose values all have one size: their signs as -1 and +1, and as places in
// the tables, in the order of search_bits. Returns 0 where the sizes differ; 0.0 counts as no sign at all.
static int pack_signs(const float *prototypes, int64_t P, int64_t D, int64_t groups, int8_t *signs,
                      uint16_t *entries) {
    float size = fabsf(prototypes[0]);
    for (int64_t p = 0; p < P; p++) {
        const float *from = prototypes + p * D;
        int odd = 0;
        for (int64_t d = 0; d < D; d++) {
            odd |= fabsf(from[d]) != size;
            signs[p * D + d] = from[d] > 0 ? 1 : -1;
        }
        if (odd || !(size > 0)) return 0;
        for (int64_t g = 0; g < groups; g++) {
            int entry = 0;
            for (int64_t d = g * GROUP; d < g * GROUP + GROUP && d < D; d++) entry |= (from[d] > 0) << (d - g * GROUP);
            entries[(g / CHUNK * P + p) * CHUNK + g % CHUNK] = entry * LINE;
        }
    }
    return 1;
}
