// Depthwise 3x3 convolutions with registers of 32 bytes, row by row from the tensor itself, without a padded
// copy; for avx2.cc and avxvnni.cc, in both of which a pixel of a plane is a dword.
//
// The nine taps of eight output pixels are loaded where they lie; only the first and the last pixels of a row
// can have a tap outside, which is blended to the zero point; rows above and below are a row of zero points.
// The last eight pixels of a row may overlap those before. With stride 2 every other pixel is picked from two
// vectors, which leaves the order 0 1 4 5 2 3 6 7, put right when stored.
//
// Narrow rows (four to seven pixels, two planes): four pixels of each plane share a register.
#pragma once

#include <immintrin.h>

#include "kernels.h"

namespace edgesparse {
namespace {

struct RowPointers {
  const uint8_t* of[3];
};

// What a kernel does with taps: kPlanes, and Arithmetic(d, group, plane, narrow) with
// __m256i operator()(const __m256i (&taps)[9]).
template <class Arithmetic>
struct DepthwiseRows {
  const Depthwise& d;
  __m256i outside;
  const uint8_t* blank;  // a row of zero points

  enum { kWide = 8, kNarrowest = 4 };

  static bool narrow(const Depthwise& d) { return d.out_width < kWide; }

  static bool can(const Depthwise& d, size_t* scratch_bytes) {
    *scratch_bytes = (size_t)(d.width + 64) * 4 + (narrow(d) ? d.in_plane : 0);
    const int stride = d.stride_width;
    if (d.kernel_height != 3 || d.kernel_width != 3 || d.dilation_height != 1 || d.dilation_width != 1)
      return false;
    if (d.stride_height != stride || stride > 2 || d.pad_left > 1 || d.pad_top > 1) return false;
    if (d.out_width < (Arithmetic::kPlanes == 2 ? kNarrowest : kWide)) return false;
    return (d.out_width - 1) * stride - d.pad_left + 1 < d.width;
  }

  // One tap of eight pixels (or of four of each plane), the first at `p`.
  template <int kStride, bool kNarrow>
  inline __attribute__((always_inline)) __m256i pick(const uint8_t* p) const {
    const auto load = [&](int pixel) {
      const uint8_t* at = p + pixel * 4;
      if (!kNarrow) return _mm256_loadu_si256((const __m256i*)at);
      return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i*)at)),
                                     _mm_loadu_si128((const __m128i*)(at + d.in_plane)), 1);
    };
    if (kStride == 1) return load(0);
    return _mm256_castps_si256(
        _mm256_shuffle_ps(_mm256_castsi256_ps(load(0)), _mm256_castsi256_ps(load(kNarrow ? 4 : 8)), 0x88));
  }

  template <int kStride, bool kNarrow, bool kLeft, bool kRight>
  inline __attribute__((always_inline)) void vector(const Arithmetic& a, const RowPointers& rows, int x,
                                                    uint8_t* out) const {
    __m256i taps[9];
    const ptrdiff_t first = ((ptrdiff_t)x * kStride - d.pad_left) * 4;
#pragma GCC unroll 3
    for (int y = 0; y < 3; y++) {
#pragma GCC unroll 3
      for (int k = 0; k < 3; k++) taps[y * 3 + k] = pick<kStride, kNarrow>(rows.of[y] + first + k * 4);
      if (kLeft) taps[y * 3] = _mm256_blend_epi32(taps[y * 3], outside, kNarrow ? 0x11 : 0x01);
      if (kRight) taps[y * 3 + 2] = _mm256_blend_epi32(taps[y * 3 + 2], outside, kNarrow ? 0x88 : 0x80);
    }
    __m256i result = a(taps);
    if (kNarrow) {
      _mm_storeu_si128((__m128i*)(out + x * 4), _mm256_castsi256_si128(result));
      _mm_storeu_si128((__m128i*)(out + x * 4 + d.out_plane), _mm256_extracti128_si256(result, 1));
      return;
    }
    if (kStride == 2) result = _mm256_permute4x64_epi64(result, 0xD8);
    _mm256_storeu_si256((__m256i*)(out + x * 4), result);
  }

  template <int kStride, bool kNarrow>
  void plane(const Arithmetic& a, const uint8_t* in, uint8_t* out) const {
    const int step = kNarrow ? kNarrowest : kWide, last = d.out_width - step;
    const bool left = d.pad_left, right = (d.out_width - 1) * kStride - d.pad_left + 2 >= d.width;
    for (int y = 0; y < d.out_height; y++, out += (size_t)d.out_width * 4) {
      RowPointers rows;
      for (int k = 0; k < 3; k++) {
        const int from = y * kStride - d.pad_top + k;
        const bool inside = from >= 0 && from < d.height;
        rows.of[k] = inside ? in + (size_t)from * d.width * 4 : blank;
      }
      for (int x = 0;; x = x + step < last ? x + step : last) {
        const bool l = left && x == 0, r = right && x == last;
        if (l && r)
          vector<kStride, kNarrow, true, true>(a, rows, x, out);
        else if (l)
          vector<kStride, kNarrow, true, false>(a, rows, x, out);
        else if (r)
          vector<kStride, kNarrow, false, true>(a, rows, x, out);
        else
          vector<kStride, kNarrow, false, false>(a, rows, x, out);
        if (x == last) break;
      }
    }
  }

  static void run(const Depthwise& d, const uint8_t* in, uint8_t* out, int group, int group_end,
                  uint8_t* scratch) {
    const int zero = d.in_zero_point;
    const __m256i outside =
        Arithmetic::kPlanes == 2 ? _mm256_set1_epi16((short)zero) : _mm256_set1_epi8((char)(zero + 128));
    for (int i = 0; i < d.width + 56; i += 8) {
      _mm256_storeu_si256((__m256i*)(scratch + i * 4), outside);
      if (narrow(d)) _mm256_storeu_si256((__m256i*)(scratch + d.in_plane + i * 4), outside);
    }
    const DepthwiseRows rows{d, outside, scratch + 64};
    const size_t in_group = d.in_plane * Arithmetic::kPlanes, out_group = d.out_plane * Arithmetic::kPlanes;
    for (int g = group; g < group_end; g++) {
      const uint8_t* i = in + g * in_group;
      uint8_t* o = out + g * out_group;
      // A narrow plane of both: with one plane there is none.
      for (int p = 0; p < (narrow(d) ? 1 : (int)Arithmetic::kPlanes); p++, i += d.in_plane, o += d.out_plane) {
        const Arithmetic a(d, g, p, narrow(d));
        if constexpr (Arithmetic::kPlanes == 2) {
          if (narrow(d)) {
            if (d.stride_width == 1)
              rows.template plane<1, true>(a, i, o);
            else
              rows.template plane<2, true>(a, i, o);
            continue;
          }
        }
        if (d.stride_width == 1)
          rows.template plane<1, false>(a, i, o);
        else
          rows.template plane<2, false>(a, i, o);
      }
    }
  }
};

}  // namespace
}  // namespace edgesparse
