// Tokens of any stored type as floats, eight at a time.

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { FLOAT32, FLOAT16, BFLOAT16, INT8 };  // in the order of DTYPES in matching/native.py

INLINE int64_t bytes_of(int dtype) { return dtype == FLOAT32 ? 4 : dtype == INT8 ? 1 : 2; }

INLINE __m256 load8(const char *from, int dtype) {
    switch (dtype) {
    case FLOAT32: return _mm256_loadu_ps((const float *)from);
    case FLOAT16: return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
    case INT8: return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)from)));
    default: {
        __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)from));
        return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
    }
    }
}

// The last 1 to 7 values of a token, with zeros behind them.
INLINE __m256 load_rest(const char *from, int dtype, int64_t count) {
    char rest[32] = {0};
    memcpy(rest, from, count * bytes_of(dtype));
    return load8(rest, dtype);
}

INLINE float sum8(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

INLINE float max8(__m256 v) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

// row[0..dim) = the token, zeros behind it up to a multiple of 8; returns its length, sets its peak.
INLINE float widen(const char *token, int dtype, int64_t dim, float *row, float *peak) {
    __m256 most = _mm256_setzero_ps(), squares = most, sign = _mm256_set1_ps(-0.0f);
    for (int64_t d = 0; d < dim; d += 8) {
        const char *from = token + d * bytes_of(dtype);
        __m256 v = d + 8 <= dim ? load8(from, dtype) : load_rest(from, dtype, dim - d);
        _mm256_storeu_ps(row + d, v);
        most = _mm256_max_ps(most, _mm256_andnot_ps(sign, v));
        squares = _mm256_fmadd_ps(v, v, squares);
    }
    *peak = max8(most);
    return sqrtf(sum8(squares));
}

INLINE float dot(const char *token, int dtype, const char *other, int other_dtype, int64_t dim) {
    __m256 a = _mm256_setzero_ps(), b = a;
    int64_t d = 0, size = bytes_of(dtype), step = bytes_of(other_dtype);
    for (; d + 16 <= dim; d += 16) {
        a = _mm256_fmadd_ps(load8(token + d * size, dtype), load8(other + d * step, other_dtype), a);
        b = _mm256_fmadd_ps(load8(token + (d + 8) * size, dtype), load8(other + (d + 8) * step, other_dtype), b);
    }
    for (; d < dim; d += 8) {
        int64_t count = dim - d < 8 ? dim - d : 8;
        a = _mm256_fmadd_ps(load_rest(token + d * size, dtype, count),
                            load_rest(other + d * step, other_dtype, count), a);
    }
    return sum8(_mm256_add_ps(a, b));
}

// to[0..dim) += weight * token
INLINE void add_scaled(const char *token, int dtype, float weight, int64_t dim, float *to) {
    __m256 w = _mm256_set1_ps(weight);
    int64_t d = 0, size = bytes_of(dtype);
    for (; d + 8 <= dim; d += 8)
        _mm256_storeu_ps(to + d, _mm256_fmadd_ps(load8(token + d * size, dtype), w, _mm256_loadu_ps(to + d)));
    if (d < dim) {
        float rest[8];
        _mm256_storeu_ps(rest, _mm256_mul_ps(load_rest(token + d * size, dtype, dim - d), w));
        for (int64_t i = 0; d + i < dim; i++) to[d + i] += rest[i];
    }
}

// Round a row of floats to 16 bits; width is a multiple of 8.
INLINE void quantize(const float *row, int64_t width, float scale, int16_t *to) {
    for (int64_t d = 0; d < width; d += 8) {
        __m256i q = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(row + d), _mm256_set1_ps(scale)));
        __m128i packed = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
        _mm_storeu_si128((__m128i *)(to + d), packed);
    }
}
