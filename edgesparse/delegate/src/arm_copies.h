// Copies, borders and additions on Arm, for both layouts.
#pragma once

#include "arm_requant.h"
#include "plain_kernels.h"

namespace edgesparse {
namespace {

// Runs of pixels of kUnit bytes. Reads may go beyond (kMargin), writes may not.
template <int kUnit>
struct Pixels {
  template <int kStride>
  static ARM_INLINE uint8x16_t load(const uint8_t* in) {
    if (kStride == 1) return vld1q_u8(in);
    if (kUnit == 2) return vreinterpretq_u8_u16(vld2q_u16((const uint16_t*)in).val[0]);
    return vreinterpretq_u8_u32(vld2q_u32((const uint32_t*)in).val[0]);
  }
  template <int kStride>
  static ARM_INLINE void copy_by(uint8_t* out, const uint8_t* in, int bytes) {
    int i = 0;
    for (; i + 16 <= bytes; i += 16) vst1q_u8(out + i, load<kStride>(in + i * kStride));
    if (i == bytes) return;
    if (bytes >= 16)  // overlaps the one before
      return vst1q_u8(out + bytes - 16, load<kStride>(in + (bytes - 16) * kStride));
    uint64x2_t rest = vreinterpretq_u64_u8(load<kStride>(in));
    if (bytes & 8) {
      vst1_u8(out, vreinterpret_u8_u64(vget_low_u64(rest)));
      rest = vdupq_laneq_u64(rest, 1), out += 8;
    }
    uint64_t last = vgetq_lane_u64(rest, 0);
    if (bytes & 4) memcpy(out, &last, 4), last >>= 32, out += 4;
    if (bytes & 2) memcpy(out, &last, 2);
  }
  static ARM_INLINE void copy(uint8_t* out, const uint8_t* in, int pixels, int stride) {
    if (stride == 1)
      copy_by<1>(out, in, pixels * kUnit);
    else if (stride == 2)
      copy_by<2>(out, in, pixels * kUnit);
    else
      PlainPixels<kUnit>::copy(out, in, pixels, stride);
  }
  static ARM_INLINE void fill(uint8_t* out, int pixels, uint32_t value) {
    const uint8x16_t v = kUnit == 2 ? vreinterpretq_u8_u16(vdupq_n_u16((uint16_t)value))
                                    : vreinterpretq_u8_u32(vdupq_n_u32(value));
    const int bytes = pixels * kUnit;
    int i = 0;
    for (; i + 16 <= bytes; i += 16) vst1q_u8(out + i, v);
    for (; i < bytes; i += kUnit) memcpy(out + i, &value, kUnit);
  }
};

// Four pixels of sixteen channels <-> four groups of four pixels of four channels.
ARM_INLINE void transpose(int8x16_t (&v)[4]) {
  const int32x4_t a = vreinterpretq_s32_s8(v[0]), b = vreinterpretq_s32_s8(v[1]);
  const int32x4_t c = vreinterpretq_s32_s8(v[2]), d = vreinterpretq_s32_s8(v[3]);
  const int64x2_t ab0 = vreinterpretq_s64_s32(vtrn1q_s32(a, b)), ab1 = vreinterpretq_s64_s32(vtrn2q_s32(a, b));
  const int64x2_t cd0 = vreinterpretq_s64_s32(vtrn1q_s32(c, d)), cd1 = vreinterpretq_s64_s32(vtrn2q_s32(c, d));
  v[0] = vreinterpretq_s8_s64(vtrn1q_s64(ab0, cd0)), v[1] = vreinterpretq_s8_s64(vtrn1q_s64(ab1, cd1));
  v[2] = vreinterpretq_s8_s64(vtrn2q_s64(ab0, cd0)), v[3] = vreinterpretq_s8_s64(vtrn2q_s64(ab1, cd1));
}

// Four pixels of a group: 16 bytes in one plane, or 8 bytes in each of two.
template <int kPlanesOf>
ARM_INLINE void store_group(uint8_t* out, size_t plane, int8x16_t pixels) {
  if (kPlanesOf == 1) return vst1q_u8(out, vreinterpretq_u8_s8(pixels));
  const uint16x8_t pairs = vreinterpretq_u16_s8(pixels);
  const uint8x16_t both = vreinterpretq_u8_u16(vuzp1q_u16(pairs, pairs)),
                   last = vreinterpretq_u8_u16(vuzp2q_u16(pairs, pairs));
  vst1_u8(out, vget_low_u8(both));
  vst1_u8(out + plane, vget_low_u8(last));
}
template <int kPlanesOf>
ARM_INLINE int8x16_t load_group(const uint8_t* in, size_t plane) {
  if (kPlanesOf == 1) return vreinterpretq_s8_u8(vld1q_u8(in));
  const uint16x4_t a = vreinterpret_u16_u8(vld1_u8(in)), b = vreinterpret_u16_u8(vld1_u8(in + plane));
  return vreinterpretq_s8_u16(vcombine_u16(vzip1_u16(a, b), vzip2_u16(a, b)));
}

// Loads n (at least 1) of sixteen bytes, the others anything; reads nothing behind them.
ARM_INLINE int8x16_t load_some(const int8_t* in, int n) {
  if (n >= 16) return vld1q_s8(in);
  int8_t some[16] = {0};
  memcpy(some, in, (size_t)n);
  return vld1q_s8(some);
}

template <int kPlanesOf>
void from_nhwc(const int8_t* in, int pixels, int channels, uint8_t* out, size_t plane, int group, int group_end) {
  const int unit = 4 / kPlanesOf;
  if (channels == 3) {  // twelve bytes are four pixels
    static const uint8_t order[16] = {0, 1, 2, 255, 3, 4, 5, 255, 6, 7, 8, 255, 9, 10, 11, 255};
    const uint8x16_t table = vld1q_u8(order);
    for (int p = 0; p < pixels; p += 4)
      store_group<kPlanesOf>(out + p * unit, plane, vqtbl1q_s8(load_some(in + p * 3, (pixels - p) * 3), table));
    return;
  }
  for (int p = 0; p < pixels; p += 4)
    for (int g = group; g < group_end; g += 4) {
      const int left = channels - g * 4, n = group_end - g < 4 ? group_end - g : 4;
      int8x16_t v[4];
#pragma clang loop unroll(full)
      for (int i = 0; i < 4; i++)
        v[i] = load_some(in + (size_t)(p + i < pixels ? p + i : pixels - 1) * channels + g * 4, left);
      transpose(v);
      uint8_t* o = out + (size_t)g * kPlanesOf * plane + p * unit;
      for (int i = 0; i < n; i++) store_group<kPlanesOf>(o + (size_t)i * kPlanesOf * plane, plane, v[i]);
    }
}

template <int kPlanesOf>
void to_nhwc(const uint8_t* in, size_t plane, int pixels, int channels, int8_t* out, int group, int group_end) {
  const int unit = 4 / kPlanesOf;
  for (int p = 0; p < pixels; p += 4)
    for (int g = group; g < group_end; g += 4) {
      const int n = group_end - g < 4 ? group_end - g : 4;
      const int left = channels - g * 4 < n * 4 ? channels - g * 4 : n * 4;
      const uint8_t* a = in + (size_t)g * kPlanesOf * plane + p * unit;
      int8x16_t v[4];
      for (int i = 0; i < 4; i++) v[i] = load_group<kPlanesOf>(a + (size_t)(i < n ? i : 0) * kPlanesOf * plane, plane);
      transpose(v);
      for (int i = 0; i < 4 && p + i < pixels; i++) {
        int8_t* o = out + (size_t)(p + i) * channels + g * 4;
        if (left >= 16)
          vst1q_s8(o, v[i]);
        else
          memcpy(o, &v[i], (size_t)left);
      }
    }
}

// `bytes` is a multiple of 16.
void add(const Addition& s, const uint8_t* a, const uint8_t* b, uint8_t* out, size_t bytes) {
  const int32x4_t ma = vdupq_n_s32(s.multiplier_a), mb = vdupq_n_s32(s.multiplier_b), bias = vdupq_n_s32(s.bias);
  const int32x4_t shift = vdupq_n_s32(-s.shift);
  const int16x8_t zero = vdupq_n_s16((int16_t)s.output.zero_point);
  const int8x16_t low = vdupq_n_s8((int8_t)s.output.lowest), high = vdupq_n_s8((int8_t)s.output.highest);
  const auto four = [&](int16x4_t x, int16x4_t y) __attribute__((always_inline)) {
    const int32x4_t sum = vmlaq_s32(vmlaq_s32(bias, vmovl_s16(x), ma), vmovl_s16(y), mb);
    return vqmovn_s32(vshlq_s32(sum, shift));
  };
  const auto eight = [&](int16x8_t x, int16x8_t y) __attribute__((always_inline)) {
    const int16x8_t q = vcombine_s16(four(vget_low_s16(x), vget_low_s16(y)), four(vget_high_s16(x), vget_high_s16(y)));
    return vqmovn_s16(vqaddq_s16(q, zero));
  };
  for (size_t i = 0; i < bytes; i += 16) {
    const int8x16_t x = vld1q_s8((const int8_t*)a + i), y = vld1q_s8((const int8_t*)b + i);
    const int8x16_t q = vcombine_s8(eight(vmovl_s8(vget_low_s8(x)), vmovl_s8(vget_low_s8(y))),
                                    eight(vmovl_high_s8(x), vmovl_high_s8(y)));
    vst1q_s8((int8_t*)out + i, vmaxq_s8(vminq_s8(q, high), low));
  }
}

// Whole vectors: what lies between the last pixel and the end of a plane may be written.
template <int kPlanesOf>
void max_pool(const Depthwise& d, const uint8_t* padded, uint8_t* out) {
  const int8x16_t low = vdupq_n_s8((int8_t)d.output.lowest), high = vdupq_n_s8((int8_t)d.output.highest);
  const int bytes = d.pixels * (4 / kPlanesOf);
  for (int plane = 0; plane < kPlanesOf; plane++, padded += d.in_plane, out += d.out_plane)
    for (int i = 0; i < bytes; i += 16) {
      int8x16_t best = low;
      for (int t = 0; t < d.taps; t++) best = vmaxq_s8(best, vld1q_s8((const int8_t*)padded + d.shifts[t] + i));
      vst1q_s8((int8_t*)out + i, vminq_s8(best, high));
    }
}

}  // namespace
}  // namespace edgesparse
