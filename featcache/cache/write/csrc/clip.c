// One layer of one clip on its way to disk, in one pass over its tokens: converted or quantized, summed, and
// the extremes of its channels kept. Every value is that of ../plain.py, bit for bit: same order of sums, no
// contraction of a product and a sum into one (-ffp-contract=off).

#include <float.h>
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

enum { FLOAT32, FLOAT16, BFLOAT16, INT8, INT4 };  // as in ../native.py
enum { SUMMED = 512, SOME = 8 };                  // as in ../plain.py
enum { AHEAD = 2 };                               // rows that are fetched before they are read
enum { HALF_INFINITY = 0x7C00, BRAIN_INFINITY = 0x7F80, INFINITE = 0x7F800000, MAGNITUDE = 0x7FFFFFFF };

typedef struct {
    const char *tokens;             // n rows of D values, `stride` bytes apart
    int64_t source, stride, n, D, valid;
    int64_t store;                  // the type that is stored,
    char *row;                      // and where: n rows, no gaps
    int64_t row_bytes;
    const float *channels;          // D scales of channels (INT8, INT4), or NULL
    float *scale;                   // n scales of tokens (INT8, INT4)
    float *mean;                    // D: of the first `valid` tokens
    int64_t given;                  // whether the mean is there already
    float *variance;                // D, or NULL if neither it nor the largest is wanted
    int32_t *largest;               // D: magnitudes as the bits of floats, which sort alike
    float *work;                    // 3 x (D + 8)
} Clip;

#define INLINE static inline __attribute__((always_inline))

INLINE int32_t largest_of(__m256i v) {
    int32_t lane[8], most = 0;
    _mm256_storeu_si256((__m256i *)lane, v);
    for (int i = 0; i < 8; i++) most = lane[i] > most ? lane[i] : most;
    return most;
}

// Row t as float32: where it is, or in `out`.
INLINE const float *widened(const Clip *clip, int64_t t, float *out) {
    const char *row = clip->tokens + t * clip->stride;
    const uint16_t *half = (const uint16_t *)row;
    int64_t d = 0;
    if (clip->source == FLOAT32) return (const float *)row;
    if (clip->source == FLOAT16) {
        for (; d + 8 <= clip->D; d += 8)
            _mm256_storeu_ps(out + d, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(half + d))));
        for (; d < clip->D; d++) out[d] = _cvtsh_ss(half[d]);
    } else {
        uint32_t *bits = (uint32_t *)out;
        for (; d < clip->D; d++) bits[d] = (uint32_t)half[d] << 16;
    }
    return out;
}

// To float16, to the nearest, ties to even; whether all are finite.
INLINE int to_half(const float *x, int64_t D, uint16_t *out) {
    __m128i most = _mm_setzero_si128(), magnitude = _mm_set1_epi16(0x7FFF);
    int64_t d = 0;
    for (; d + 8 <= D; d += 8) {
        __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(x + d), _MM_FROUND_TO_NEAREST_INT);
        most = _mm_max_epi16(most, _mm_and_si128(half, magnitude));
        _mm_storeu_si128((__m128i *)(out + d), half);
    }
    int32_t top = largest_of(_mm256_cvtepi16_epi32(most));
    for (; d < D; d++) {
        out[d] = _cvtss_sh(x[d], _MM_FROUND_TO_NEAREST_INT);
        top = (out[d] & 0x7FFF) > top ? out[d] & 0x7FFF : top;
    }
    return top < HALF_INFINITY;
}

// To bfloat16, to the nearest, ties to even; whether all are finite.
INLINE int to_brain(const uint32_t *bits, int64_t D, uint16_t *out) {
    int32_t top = 0;
    for (int64_t d = 0; d < D; d++) {
        // A NaN must not round up to nothing: no NaN is stored, but it must be seen.
        uint32_t b = bits[d], round = (b & MAGNITUDE) > INFINITE ? 0 : 0x7FFF + ((b >> 16) & 1);
        out[d] = (uint16_t)((b + round) >> 16);
        int32_t magnitude = (int32_t)((b + round) & MAGNITUDE);
        top = magnitude > top ? magnitude : top;
    }
    return top < INFINITE;
}

INLINE int32_t largest_bits(const float *x, int64_t D) {
    const int32_t *bits = (const int32_t *)x;
    int32_t top = 0;
    for (int64_t d = 0; d < D; d++) {
        int32_t magnitude = bits[d] & MAGNITUDE;
        top = magnitude > top ? magnitude : top;
    }
    return top;
}

INLINE void divide(float *restrict out, const float *restrict x, const float *restrict by, int64_t D) {
    for (int64_t d = 0; d < D; d++) out[d] = x[d] / by[d];
}

// To integers of -steps..steps and one scale; whether the scale is finite. `work` has D + 8 values.
INLINE int to_integers(const Clip *clip, const float *x, int64_t t, char *out, float *work) {
    int64_t D = clip->D;
    if (clip->channels) {
        divide(work, x, clip->channels, D);
        x = work;
    }
    union { int32_t bits; float value; } top = {largest_bits(x, D)};
    float scale = top.value / (clip->store == INT8 ? 127.0f : 7.0f);
    __m256 divisor = _mm256_set1_ps(scale > FLT_MIN ? scale : FLT_MIN);
    clip->scale[t] = scale;
    if (x != work) memcpy(work, x, D * sizeof(float));
    memset(work + D, 0, 8 * sizeof(float));
    int8_t *integers = (int8_t *)work;  // written behind what is read
    for (int64_t d = 0; d < D; d += 8) {
        __m256i whole = _mm256_cvtps_epi32(_mm256_div_ps(_mm256_loadu_ps(work + d), divisor));
        __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
        _mm_storel_epi64((__m128i *)(integers + d), _mm_packs_epi16(words, words));
    }
    if (clip->store == INT8) memcpy(out, integers, D);
    else
        for (int64_t d = 0; d < D; d += 2) out[d / 2] = (char)((integers[d] & 0x0F) | (integers[d + 1] << 4));
    return top.bits < INFINITE;
}

INLINE int stored(const Clip *clip, const float *x, int64_t t, float *work) {
    char *out = clip->row + t * clip->row_bytes;
    switch (clip->store) {
    case FLOAT32: memcpy(out, x, clip->row_bytes); return largest_bits(x, clip->D) < INFINITE;
    case FLOAT16: return to_half(x, clip->D, (uint16_t *)out);
    case BFLOAT16: return to_brain((const uint32_t *)x, clip->D, (uint16_t *)out);
    default: return to_integers(clip, x, t, out, work);
    }
}

INLINE void add(float *restrict sum, const float *restrict x, int64_t D, int first) {
    if (first) memcpy(sum, x, D * sizeof(float));
    else
        for (int64_t d = 0; d < D; d++) sum[d] += x[d];
}

INLINE void note_largest(int32_t *restrict largest, const float *restrict x, int64_t D) {
    const int32_t *bits = (const int32_t *)x;
    for (int64_t d = 0; d < D; d++) {
        int32_t magnitude = bits[d] & MAGNITUDE;
        largest[d] = magnitude > largest[d] ? magnitude : largest[d];
    }
}

// Both at once.
INLINE void add_noting(float *restrict sum, int32_t *restrict largest, const float *restrict x, int64_t D) {
    const int32_t *bits = (const int32_t *)x;
    for (int64_t d = 0; d < D; d++) {
        int32_t magnitude = bits[d] & MAGNITUDE;
        largest[d] = magnitude > largest[d] ? magnitude : largest[d];
        sum[d] += x[d];
    }
}

INLINE void add_squares(float *restrict sum, const float *restrict x, const float *restrict mean, int64_t D) {
    for (int64_t d = 0; d < D; d++) {
        float away = x[d] - mean[d];
        sum[d] += away * away;
    }
}

// The mean square distance of every eighth token from the mean.
INLINE void note_variance(const Clip *clip, float *work) {
    int64_t D = clip->D, count = 0;
    memset(clip->variance, 0, D * sizeof(float));
    for (int64_t t = 0; t < clip->valid; t += SOME, count++)
        add_squares(clip->variance, widened(clip, t, work), clip->mean, D);
    if (count)
        for (int64_t d = 0; d < D; d++) clip->variance[d] /= (float)count;
}

// Have a row brought near before it is read.
INLINE void fetch(const Clip *clip, int64_t t) {
    const char *row = clip->tokens + t * clip->stride;
    int64_t bytes = clip->D * (clip->source == FLOAT32 ? 4 : 2);
    for (int64_t place = 0; place < bytes; place += 64) _mm_prefetch(row + place, _MM_HINT_T0);
}

// Returns whether everything that is stored is finite.
int featcache_clip(const Clip *clip) {
    int64_t D = clip->D;
    float *wide = clip->work, *work = wide + D + 8, *sum = work + D + 8;
    int finite = 1, summing = !clip->given;
    if (summing) memset(clip->mean, 0, D * sizeof(float));
    if (clip->variance) memset(clip->largest, 0, D * sizeof(float));
    for (int64_t t = 0; t < clip->n; t++) {
        if (t + AHEAD < clip->n) fetch(clip, t + AHEAD);
        const float *x = widened(clip, t, wide);
        finite &= stored(clip, x, t, work);
        if (t >= clip->valid) continue;
        int noting = clip->variance != NULL, first = t % SUMMED == 0;
        if (noting && summing && !first) add_noting(sum, clip->largest, x, D);
        else {
            if (noting) note_largest(clip->largest, x, D);
            if (summing) add(sum, x, D, first);
        }
        if (!summing) continue;
        if (t % SUMMED == SUMMED - 1 || t == clip->valid - 1) add(clip->mean, sum, D, t < SUMMED);
    }
    if (summing && clip->valid)
        for (int64_t d = 0; d < D; d++) clip->mean[d] /= (float)clip->valid;
    if (clip->variance) note_variance(clip, wide);
    return finite;
}
