// What lies before and after the FFT of a filter bank, for a block of frames that stays in the second-level
// cache. Before it every rounding is that of ../fbank.py: no contraction of a product and a sum into one
// (-ffp-contract=off).

#include <immintrin.h>
#include <stdint.h>

enum { SIDE = 8 };  // frames side by side in a vector

typedef struct {
    const float *waveform;
    int64_t shift, length;        // of frames
    const float *means, *window;  // of each frame; (length,), zero at its first sample
    float *padded;                // rows of 2 x bins values; what is not of a frame is zero
    int64_t bins, mels;           // multiples of SIDE; the bin at Nyquist has no weight
    const int32_t *first, *count; // of the bins that a mel weighs
    const float *weights;         // of all mels in turn
    float *power;                 // bins x SIDE, aligned to 32 bytes
    float *energies;              // rows of mels
    float floor;                  // of an energy
} Fbank;

#define INLINE static inline __attribute__((always_inline))

// Frames `begin` to `begin + rows` without their mean, pre-emphasized and windowed.
void featcache_windowed(const Fbank *bank, int64_t begin, int64_t rows) {
    const float *restrict window = bank->window;
    for (int64_t row = 0; row < rows; row++) {
        const float *restrict x = bank->waveform + (begin + row) * bank->shift;
        float *restrict out = bank->padded + row * 2 * bank->bins;
        float mean = bank->means[begin + row];
        for (int64_t i = 1; i < bank->length; i++) {
            float delayed = (x[i - 1] - mean) * 0.97f;
            out[i] = ((x[i] - mean) - delayed) * window[i];
        }
    }
}

INLINE void transpose(__m256 v[SIDE]) {
    __m256 a[SIDE], b[SIDE];
    for (int i = 0; i < SIDE; i += 2) {
        a[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
    }
    for (int i = 0; i < SIDE; i += 4) {
        b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xEE);
        b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xEE);
    }
    for (int i = 0; i < SIDE / 2; i++) {
        v[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
        v[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
}

// Powers of SIDE frames, bin by bin; frames after the last are the last again.
INLINE void to_power(const Fbank *bank, const float *spectrum, int64_t row, int64_t rows) {
    static const int bin[SIDE] = {0, 1, 4, 5, 2, 3, 6, 7};  // the order that the horizontal sum leaves
    for (int64_t k = 0; k < bank->bins; k += SIDE) {
        __m256 v[SIDE];
        for (int i = 0; i < SIDE; i++) {
            int64_t own = row + i < rows ? row + i : rows - 1;
            const float *complex = spectrum + own * (2 * bank->bins + 2) + 2 * k;
            __m256 low = _mm256_loadu_ps(complex), high = _mm256_loadu_ps(complex + SIDE);
            v[i] = _mm256_hadd_ps(_mm256_mul_ps(low, low), _mm256_mul_ps(high, high));
        }
        transpose(v);
        for (int i = 0; i < SIDE; i++) _mm256_store_ps(bank->power + (k + bin[i]) * SIDE, v[i]);
    }
}

// Mel energies of frames `begin` to `begin + rows` from their spectra (rows, bins + 1), re and im in turn.
void featcache_energies(const Fbank *bank, const float *spectrum, int64_t begin, int64_t rows) {
    __m256 least = _mm256_set1_ps(bank->floor);
    for (int64_t row = 0; row < rows; row += SIDE) {
        to_power(bank, spectrum, row, rows);
        const float *weight = bank->weights;
        for (int64_t mel = 0; mel < bank->mels; mel += SIDE) {
            __m256 v[SIDE];
            for (int i = 0; i < SIDE; i++) {
                const float *power = bank->power + bank->first[mel + i] * SIDE;
                int32_t count = bank->count[mel + i];
                __m256 sum = _mm256_setzero_ps();
                for (int32_t k = 0; k < count; k++)
                    sum = _mm256_fmadd_ps(_mm256_broadcast_ss(weight + k), _mm256_load_ps(power + k * SIDE), sum);
                weight += count;
                v[i] = _mm256_max_ps(least, sum);  // a NaN stays one
            }
            transpose(v);
            for (int i = 0; i < SIDE && row + i < rows; i++)
                _mm256_storeu_ps(bank->energies + (begin + row + i) * bank->mels + mel, v[i]);
        }
    }
}
