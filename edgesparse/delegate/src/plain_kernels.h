// Every kernel function in plain C++, for any layout. portable.cc uses nothing else; the other files include
// it to be compiled with their flags and replace what is worth it. Everything is in an unnamed namespace:
// two files with different flags must not share a function.
#pragma once

#include "kernels.h"

namespace edgesparse {
namespace {

// round to nearest even by adding 1.5 * 2^23: exact for |f| < 2^22, and f is clamped before.
inline int requantize(int32_t accumulator, float scale, const Output& output) {
  float f = (float)accumulator * scale;
  const float low = (float)(output.lowest - output.zero_point),
              high = (float)(output.highest - output.zero_point);
  f = f < low ? low : f;
  f = f > high ? high : f;
  f += 12582912.0f;
  int32_t bits;
  memcpy(&bits, &f, 4);
  return bits - 0x4B400000 + output.zero_point;
}

// How pixels of kUnit bytes are copied and filled; instruction sets have better ones.
template <int kUnit>
struct PlainPixels {
  template <class U>
  static void copy_as(U* out, const U* in, int pixels, int stride) {
    for (int i = 0; i < pixels; i++) out[i] = in[(size_t)i * stride];
  }
  static void copy(uint8_t* out, const uint8_t* in, int pixels, int stride) {
    if (stride == 1)
      memcpy(out, in, (size_t)pixels * kUnit);
    else if (kUnit == 2)
      copy_as((uint16_t*)out, (const uint16_t*)in, pixels, stride);
    else
      copy_as((uint32_t*)out, (const uint32_t*)in, pixels, stride);
  }
  static void fill(uint8_t* out, int pixels, uint32_t value) {
    for (int i = 0; i < pixels; i++) memcpy(out + i * kUnit, &value, kUnit);
  }
};

// Element: the type of a stored element; kPlanes: planes of a group; kOffset: added to what is stored.
template <class Element, int kPlanes, int kOffset, template <int> class PixelsOf = PlainPixels>
struct Generic {
  enum { kInPlane = 4 / kPlanes, kUnit = kInPlane * (int)sizeof(Element), kStrip = 16 };
  typedef PixelsOf<kUnit> Pixels;

  static const Element* at(const uint8_t* in, size_t plane, int channel) {
    return (const Element*)(in + channel / kInPlane * plane) + channel % kInPlane;
  }

  static Element stored(int value) { return (Element)(value + kOffset); }

  template <int kBlock>
  static void multiply_rows(const Matrix& m, const uint8_t* in, uint8_t* out, int row, int row_end, int first,
                            int last) {
    for (int r = row; r < row_end; r += kBlock) {
      const int from = m.starts[r / kBlock], to = m.starts[r / kBlock + 1];
      for (int p = first; p < last; p += kStrip) {
        const int n = last - p < kStrip ? last - p : kStrip;
        int32_t acc[kBlock][kStrip];
        for (int i = 0; i < kBlock; i++)
          for (int x = 0; x < kStrip; x++) acc[i][x] = m.bias[r + i];
        for (int b = from; b < to; b++) {
          const uint8_t* base = in + m.offsets[b] + (size_t)p * kUnit;
          for (int i = 0; i < kBlock; i++)
            for (int c = 0; c < 4; c++) {
              const size_t at_weight = ((size_t)b * kBlock + i) * 4 + c;
              const int w = sizeof(Element) == 2 ? ((const int16_t*)m.weights)[at_weight]
                                                 : ((const int8_t*)m.weights)[at_weight];
              const Element* a = at(base, m.in_plane, c);
              for (int x = 0; x < n; x++) acc[i][x] += w * a[x * kInPlane];
            }
        }
        for (int i = 0; i < kBlock; i++) {
          Element* o =
              (Element*)at(out + (size_t)((r + i) / 4) * kPlanes * m.out_plane, m.out_plane, (r + i) % 4);
          for (int x = 0; x < n; x++)
            o[(size_t)(p + x) * kInPlane] = stored(requantize(acc[i][x], m.scale[r + i], m.output));
        }
      }
    }
  }

  template <int kVector>
  static void multiply(const Matrix& m, const uint8_t* in, uint8_t* out, int row, int row_end, int vector,
                       int vector_end) {
    const int last = vector_end * kVector < m.pixels ? vector_end * kVector : m.pixels;
    if (m.block == 1) multiply_rows<1>(m, in, out, row, row_end, vector * kVector, last);
    if (m.block == 2) multiply_rows<2>(m, in, out, row, row_end, vector * kVector, last);
    if (m.block == 4) multiply_rows<4>(m, in, out, row, row_end, vector * kVector, last);
  }

  static void depthwise(const Depthwise& d, int group, const uint8_t* padded, uint8_t* out) {
    const int8_t* weights = d.weights + (size_t)group * d.taps * 4;
    for (int p = 0; p < d.pixels; p += kStrip) {
      const int n = d.pixels - p < kStrip ? d.pixels - p : kStrip;
      for (int c = 0; c < 4; c++) {
        int32_t acc[kStrip];
        for (int x = 0; x < kStrip; x++) acc[x] = d.bias[group * 4 + c];
        for (int t = 0; t < d.taps; t++) {
          const Element* a = at(padded + d.shifts[t] + (size_t)p * kUnit, d.in_plane, c);
          for (int x = 0; x < n; x++) acc[x] += weights[t * 4 + c] * a[x * kInPlane];
        }
        Element* o = (Element*)at(out, d.out_plane, c);
        for (int x = 0; x < n; x++)
          o[(size_t)(p + x) * kInPlane] = stored(requantize(acc[x], d.scale[group * 4 + c], d.output));
      }
    }
  }

  static void max_pool(const Depthwise& d, const uint8_t* padded, uint8_t* out) {
    const int low = d.output.lowest + kOffset, high = d.output.highest + kOffset;
    for (int plane = 0; plane < kPlanes; plane++, padded += d.in_plane, out += d.out_plane)
      for (int i = 0; i < d.pixels * kInPlane; i++) {
        int best = low;
        for (int t = 0; t < d.taps; t++) {
          const int value = ((const Element*)(padded + d.shifts[t]))[i];
          best = value > best ? value : best;
        }
        ((Element*)out)[i] = (Element)(best > high ? high : best);
      }
  }

  static void average_pool(const Depthwise& d, const uint8_t* padded, uint8_t* out) {
    for (int p = 0; p < d.pixels; p += kStrip) {
      const int n = (d.pixels - p < kStrip ? d.pixels - p : kStrip) * kInPlane;
      int32_t counts[kStrip * kInPlane];
      for (int i = 0; i < n; i++) counts[i] = d.counts[p + i / kInPlane];
      for (int plane = 0; plane < kPlanes; plane++) {
        int32_t sum[kStrip * kInPlane];
        for (int i = 0; i < n; i++) sum[i] = -d.taps * kOffset;
        for (int t = 0; t < d.taps; t++) {
          const Element* a = (const Element*)(padded + d.shifts[t] + plane * d.in_plane) + (size_t)p * kInPlane;
          for (int i = 0; i < n; i++) sum[i] += a[i];
        }
        Element* o = (Element*)(out + plane * d.out_plane) + (size_t)p * kInPlane;
        for (int i = 0; i < n; i++) {
          // The quotient of numbers below 2^15 is exact enough in single precision to be cut off.
          const int32_t size = (sum[i] < 0 ? -sum[i] : sum[i]) + counts[i] / 2;
          int32_t q = (int32_t)((float)size / (float)counts[i]);
          q = sum[i] < 0 ? -q : q;
          q = q < d.output.lowest ? d.output.lowest : q;
          o[i] = stored(q > d.output.highest ? d.output.highest : q);
        }
      }
    }
  }

  static void spread(const Spread& s, int groups, const uint8_t* in, size_t in_plane, uint8_t* out,
                     size_t out_plane) {
    // Output columns [left, right) come from the input.
    int left = s.left < 0 ? (-s.left + s.stride_width - 1) / s.stride_width : 0;
    int right = s.left < s.width ? (s.width - s.left + s.stride_width - 1) / s.stride_width : 0;
    right = right > s.out_pitch ? s.out_pitch : right;
    left = left > right ? right : left;
    for (int g = 0; g < groups * kPlanes; g++, in += in_plane, out += out_plane) {
      uint8_t* o = out;
      for (int y = 0; y < s.out_height; y++, o += (size_t)s.out_pitch * kUnit) {
        const int from = y * s.stride_height + s.top;
        if (from < 0 || from >= s.height || left == right) {
          Pixels::fill(o, s.out_pitch, s.outside);
          continue;
        }
        const uint8_t* row = in + ((size_t)from * s.width + (size_t)(left * s.stride_width + s.left)) * kUnit;
        Pixels::fill(o, left, s.outside);
        Pixels::copy(o + left * kUnit, row, right - left, s.stride_width);
        Pixels::fill(o + right * kUnit, s.out_pitch - right, s.outside);
      }
    }
  }

  static void compact(int groups, int height, int width, int in_pitch, const uint8_t* in, size_t in_plane,
                      uint8_t* out, size_t out_plane) {
    for (int g = 0; g < groups * kPlanes; g++, in += in_plane, out += out_plane)
      for (int y = 0; y < height; y++)
        Pixels::copy(out + (size_t)y * width * kUnit, in + (size_t)y * in_pitch * kUnit, width, 1);
  }

  static void from_nhwc(const int8_t* in, int pixels, int channels, uint8_t* out, size_t plane, int group,
                        int group_end) {
    for (int g = group; g < group_end; g++)
      for (int c = 0; c < 4; c++) {
        Element* o = (Element*)at(out + (size_t)g * kPlanes * plane, plane, c);
        const int channel = g * 4 + c;
        if (channel >= channels)
          for (int p = 0; p < pixels; p++) o[(size_t)p * kInPlane] = stored(0);
        else
          for (int p = 0; p < pixels; p++) o[(size_t)p * kInPlane] = stored(in[(size_t)p * channels + channel]);
      }
  }

  static void to_nhwc(const uint8_t* in, size_t plane, int pixels, int channels, int8_t* out, int group,
                      int group_end) {
    for (int channel = group * 4; channel < channels && channel < group_end * 4; channel++) {
      const Element* a = at(in + (size_t)(channel / 4) * kPlanes * plane, plane, channel % 4);
      for (int p = 0; p < pixels; p++)
        out[(size_t)p * channels + channel] = (int8_t)(a[(size_t)p * kInPlane] - kOffset);
    }
  }

  static void add(const Addition& s, const uint8_t* a, const uint8_t* b, uint8_t* out, size_t bytes) {
    const Element *x = (const Element*)a, *y = (const Element*)b;
    Element* o = (Element*)out;
    const int32_t bias = s.bias - (s.multiplier_a + s.multiplier_b) * kOffset;
    const int low = s.output.lowest - s.output.zero_point, high = s.output.highest - s.output.zero_point;
    const int32_t zero = s.output.zero_point + kOffset;
    for (size_t i = 0; i < bytes / sizeof(Element); i++) {
      int32_t q = (bias + x[i] * s.multiplier_a + y[i] * s.multiplier_b) >> s.shift;
      q = q < low ? low : q;
      q = q > high ? high : q;
      o[i] = (Element)(q + zero);
    }
  }

  template <int kVector>
  static constexpr Kernels kernels(const char* name) {
    return Kernels{name,
                   Layout{kUnit, kPlanes, (int)sizeof(Element), kOffset, kVector},
                   4,
                   {1.0f, 2.0f, 4.0f},
                   multiply<kVector>,
                   depthwise,
                   nullptr,
                   nullptr,
                   nullptr,
                   nullptr,
                   spread,
                   compact,
                   from_nhwc,
                   to_nhwc,
                   add,
                   max_pool,
                   average_pool};
  }
};

}  // namespace
}  // namespace edgesparse
