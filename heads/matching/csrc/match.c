// The prototype match on a CPU with AVX2: the entries that featcache/heads/matching/native.py calls.
//
// The winning token is searched in 16-bit integers, with a running maximum and no (N, P) map; the
// winner's cosine is then computed in float from the token as it was given.

#include "tokens.h"

#include "bits.h"
#include "wide.h"

#include "vnni.h"

typedef struct {
    const char *tokens;  // (B, N, D)
    int64_t dtype, B, N, D, P;
    const uint8_t *valid;     // (B, N), or null
    const char *prototypes;   // (P, D): int8 signs, or float32
    double stretch;           // times this their length is one
    const uint16_t *entries;  // prototypes packed for search_bits, or null
    const int16_t *packed;    // prototypes packed for search_wide, or null
    int64_t groups;           // of entries
    double reach;             // length of a packed prototype
    int64_t plain;            // AVX2 alone, to compare with
    float *scores;            // (B, P)
    int64_t *index;           // (B, P)
    float *inverse;           // (B, P): one over the length of the winning token
} Match;

typedef struct {
    int16_t *codes;  // N x width
    float *row, *gain, *length;
    int64_t *kept;
    int32_t *winner;
    Bits bits;
} Work;

INLINE int64_t padded(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

// Hand out aligned pieces of one allocation; with memory == NULL only count what is needed.
static char *carve(char *memory, const Match *m, Work *w) {
    char *at = memory;
    int64_t width = padded(m->D, 8), dims = padded(m->groups * GROUP, 8), P = padded(m->P, PANEL);
#define TAKE(to, count) (to = (void *)at, at += padded((count) * (int64_t)sizeof *(to), 64))
    TAKE(w->codes, m->N * width);
    TAKE(w->row, width);
    TAKE(w->gain, m->N);
    TAKE(w->length, m->N);
    TAKE(w->kept, m->N);
    TAKE(w->winner, P);
    if (m->entries) {
        TAKE(w->bits.columns, (dims > width ? dims : width) * BLOCK);
        TAKE(w->bits.table, CHUNK * ENTRIES * LINE);
        TAKE(w->bits.sums, 2 * (m->P < SHARE ? m->P : SHARE));
        TAKE(w->bits.best, m->P);
        TAKE(w->bits.where, m->P);
    }
#undef TAKE
    return at;
}

// The tokens that may win, rounded to 16 bits at (nearly) the largest length that cannot overflow.
INLINE int64_t round_clip(const Match *m, int dtype, const char *clip, const uint8_t *valid, Work *w) {
    int64_t count = 0, width = padded(m->D, 8);
    for (int64_t n = 0; n < m->N; n++)
        if (!valid || valid[n]) w->kept[count++] = n;
    if (!count) w->kept[count++] = 0;  // nothing but padding: its first token stands for it
    // |sum| <= length of token * length of prototype; rounding adds at most half a unit a dimension.
    double limit = m->entries ? (32766 - m->D / 2.0) / sqrt((double)m->D) : 2140000000.0 / m->reach;
    for (int64_t i = 0; i < count; i++) {
        float peak;
        float length = widen(clip + w->kept[i] * m->D * bytes_of(dtype), dtype, m->D, w->row, &peak);
        float scale = length > 0 ? fminf(limit / length, 32767 / peak) : 0;
        quantize(w->row, width, scale, w->codes + i * width);
        w->length[i] = length;
        w->gain[i] = scale > 0 ? 1 / (scale * length) : 0;
    }
    return count;
}

INLINE void match_clips(const Match *m, int dtype, int64_t first, int64_t last, Work *w) {
    int64_t width = padded(m->D, 8), size = m->D * bytes_of(dtype);
    int vnni = !m->plain && has_vnni();
    for (int64_t b = first; b < last; b++) {
        const char *clip = m->tokens + b * m->N * size;
        int64_t count = round_clip(m, dtype, clip, m->valid ? m->valid + b * m->N : NULL, w);
        if (m->entries) search_bits(w->bits, w->codes, width, count, m->entries, m->groups, m->P, w->winner);
        else if (vnni) search_vnni(w->codes, width, count, w->gain, m->packed, m->P, w->winner);
        else search_wide(w->codes, width, count, w->gain, m->packed, m->P, w->winner);
        for (int64_t p = 0; p < m->P; p++) {
            int64_t n = w->kept[w->winner[p]];
            float inverse = 1 / fmaxf(w->length[w->winner[p]], 1e-12f);
            float product = m->entries ? dot(clip + n * size, dtype, m->prototypes + p * m->D, INT8, m->D)
                                       : dot(clip + n * size, dtype, m->prototypes + 4 * p * m->D, FLOAT32, m->D);
            m->index[b * m->P + p] = n;
            m->inverse[b * m->P + p] = inverse;
            m->scores[b * m->P + p] = inverse * m->stretch * product;
        }
    }
}

// Match clips first..last; returns 1 where memory ran out.
int featcache_match(const Match *m, int64_t first, int64_t last) {
    Work w = {0};
    int64_t bytes = carve(NULL, m, &w) - (char *)NULL;
    char *memory = aligned_alloc(64, bytes);
    if (!memory) return 1;
    carve(memory, m, &w);
    if (m->entries) memset(w.bits.columns, 0, (char *)w.bits.table - (char *)w.bits.columns);
    switch (m->dtype) {  // one copy of the loops for each type, so that no test is inside them
    case FLOAT32: match_clips(m, FLOAT32, first, last, &w); break;
    case FLOAT16: match_clips(m, FLOAT16, first, last, &w); break;
    case BFLOAT16: match_clips(m, BFLOAT16, first, last, &w); break;
    default: match_clips(m, INT8, first, last, &w);
    }
    free(memory);
    return 0;
}

INLINE void gather(const Match *m, int dtype, const float *weight, int64_t first, int64_t last, float *out) {
    for (int64_t p = first; p < last; p++) {
        float *to = out + p * m->D;
        memset(to, 0, m->D * sizeof *to);
        for (int64_t b = 0; b < m->B; b++) {
            int64_t at = b * m->P + p;
            const char *token = m->tokens + (b * m->N + m->index[at]) * m->D * bytes_of(dtype);
            // The winners lie anywhere in memory: ask for the next clip's while this one is added.
            if (b + 1 < m->B) {
                const char *next = m->tokens + ((b + 1) * m->N + m->index[at + m->P]) * m->D * bytes_of(dtype);
                for (int64_t i = 0; i < m->D * bytes_of(dtype); i += 64) __builtin_prefetch(next + i);
            }
            add_scaled(token, dtype, weight[at], m->D, to);
        }
    }
}

// out (P, D): for prototypes first..last the sum over clips of weight (B, P) times the winning token.
int featcache_gather(const Match *m, const float *weight, float *out, int64_t first, int64_t last) {
    switch (m->dtype) {
    case FLOAT32: gather(m, FLOAT32, weight, first, last, out); break;
    case FLOAT16: gather(m, FLOAT16, weight, first, last, out); break;
    case BFLOAT16: gather(m, BFLOAT16, weight, first, last, out); break;
    default: gather(m, INT8, weight, first, last, out);
    }
    return 0;
}

int featcache_pack_signs(const float *prototypes, int64_t P, int64_t D, int64_t groups, int8_t *signs,
                         uint16_t *entries) {
    return pack_signs(prototypes, P, D, groups, signs, entries);
}
