// NHWC to the chain and back with registers of 16 bytes, for avx2.cc and avxvnni.cc: four pixels x sixteen
// channels are a 4x4 transposition of dwords.
#pragma once

#include <immintrin.h>

#include "kernels.h"

namespace edgesparse {
namespace {

// Four pixels of one group in the chain: kPairs: [2][pixel][2] int16, else [pixel][4] uint8.
template <bool kPairs>
struct Quad {
  static inline void put(uint8_t* out, size_t plane, int pixel, __m128i v) {
    if (!kPairs) {
      _mm_storeu_si128((__m128i*)(out + (size_t)pixel * 4), _mm_xor_si128(v, _mm_set1_epi8((char)0x80)));
      return;
    }
    v = _mm_shuffle_epi8(v, _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
    const __m256i wide = _mm256_cvtepi8_epi16(v);
    _mm_storeu_si128((__m128i*)(out + (size_t)pixel * 4), _mm256_castsi256_si128(wide));
    _mm_storeu_si128((__m128i*)(out + plane + (size_t)pixel * 4), _mm256_extracti128_si256(wide, 1));
  }
  static inline __m128i get(const uint8_t* in, size_t plane, int pixel) {
    const __m128i a = _mm_loadu_si128((const __m128i*)(in + (size_t)pixel * 4));
    if (!kPairs) return _mm_xor_si128(a, _mm_set1_epi8((char)0x80));
    const __m128i b = _mm_loadu_si128((const __m128i*)(in + plane + (size_t)pixel * 4));
    return _mm_shuffle_epi8(_mm_packs_epi16(a, b),
                            _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15));
  }
};

inline void transpose4(__m128i (&v)[4]) {
  const __m128i a = _mm_unpacklo_epi32(v[0], v[1]), b = _mm_unpackhi_epi32(v[0], v[1]);
  const __m128i c = _mm_unpacklo_epi32(v[2], v[3]), d = _mm_unpackhi_epi32(v[2], v[3]);
  v[0] = _mm_unpacklo_epi64(a, c), v[1] = _mm_unpackhi_epi64(a, c);
  v[2] = _mm_unpacklo_epi64(b, d), v[3] = _mm_unpackhi_epi64(b, d);
}

// A few bytes without touching those behind them.
inline __m128i load_part(const int8_t* in, int n) {
  if (n >= 16) return _mm_loadu_si128((const __m128i*)in);
  alignas(16) int8_t bytes[16] = {0};
  memcpy(bytes, in, (size_t)n);
  return _mm_load_si128((const __m128i*)bytes);
}
inline void store_part(int8_t* out, __m128i v, int n) {
  if (n >= 16) return _mm_storeu_si128((__m128i*)out, v);
  alignas(16) int8_t bytes[16];
  _mm_store_si128((__m128i*)bytes, v);
  memcpy(out, bytes, (size_t)n);
}

template <bool kPairs>
void quads_from_nhwc(const int8_t* in, int pixels, int channels, uint8_t* out, size_t plane, int group,
                     int group_end) {
  const size_t stride = plane * (kPairs ? 2 : 1);
  const __m128i rgb = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
  for (int p = 0; p < pixels; p += 4) {
    if (channels == 3) {
      const int left = 3 * (pixels - p);
      const __m128i v = left >= 16 ? _mm_loadu_si128((const __m128i*)(in + (size_t)p * 3))
                                   : load_part(in + (size_t)p * 3, left);
      Quad<kPairs>::put(out, plane, p, _mm_shuffle_epi8(v, rgb));
      continue;
    }
    for (int g = group; g < group_end; g += 4) {
      __m128i v[4];
      for (int i = 0; i < 4; i++) {
        const int pixel = p + i < pixels ? p + i : pixels - 1;
        v[i] = load_part(in + (size_t)pixel * channels + g * 4, channels - g * 4);
      }
      transpose4(v);
      for (int i = 0; i < 4 && g + i < group_end; i++)
        Quad<kPairs>::put(out + (size_t)(g + i) * stride, plane, p, v[i]);
    }
  }
}

template <bool kPairs>
void quads_to_nhwc(const uint8_t* in, size_t plane, int pixels, int channels, int8_t* out, int group,
                   int group_end) {
  const size_t stride = plane * (kPairs ? 2 : 1);
  for (int p = 0; p < pixels; p += 4)
    for (int g = group; g < group_end; g += 4) {
      int n = channels - g * 4;
      n = n < 4 * (group_end - g) ? n : 4 * (group_end - g);
      __m128i v[4];
      for (int i = 0; i < 4; i++)
        v[i] = g + i < group_end ? Quad<kPairs>::get(in + (size_t)(g + i) * stride, plane, p)
                                 : _mm_setzero_si128();
      transpose4(v);
      for (int i = 0; i < 4 && p + i < pixels; i++)
        store_part(out + (size_t)(p + i) * channels + g * 4, v[i], n);
    }
}

// Copies and fills of pixels of four bytes.
template <int kUnit>
struct QuadPixels {
  static inline void copy(uint8_t* out, const uint8_t* in, int pixels, int stride) {
    int i = 0;
    if (stride == 1) {
      for (; i + 8 <= pixels; i += 8)
        _mm256_storeu_si256((__m256i*)(out + i * 4), _mm256_loadu_si256((const __m256i*)(in + i * 4)));
      for (; i < pixels; i++) memcpy(out + i * 4, in + i * 4, 4);
      return;
    }
    if (stride == 2)
      for (; i + 5 <= pixels; i += 4) {  // reads one pixel more than it needs
        const __m128 a = _mm_loadu_ps((const float*)(in + i * 8)),
                     b = _mm_loadu_ps((const float*)(in + i * 8 + 16));
        _mm_storeu_ps((float*)(out + i * 4), _mm_shuffle_ps(a, b, 0x88));
      }
    for (; i < pixels; i++) memcpy(out + i * 4, in + (size_t)i * stride * 4, 4);
  }
  static inline void fill(uint8_t* out, int pixels, uint32_t value) {
    for (int i = 0; i < pixels; i++) memcpy(out + i * 4, &value, 4);
  }
};

}  // namespace
}  // namespace edgesparse
