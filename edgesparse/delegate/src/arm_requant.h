// From 32-bit accumulators to int8 on Arm, bit for bit as XNNPACK does it (see kernels.h).
//
// XNNPACK's conversions between int and float use one of the two vector pipes of a Cortex-A76, and two
// cycles of it. So there are two ways here:
//
//   narrow  |accumulator| < 2^22 and |accumulator * scale| < 32000. The accumulator starts at the bits of
//           1.5 * 2^23, so that it *is* a float, off by that number; adding the same number again rounds, and
//           the low 16 bits are the integer. Ties must go to even before the zero point is added, not
//           after: only its even part is added with the number, the rest (odd) in 16 bits.
//   wide    anything else: conversions that saturate.
#pragma once

#include <arm_neon.h>

#include "kernels.h"

namespace edgesparse {
namespace {

#define ARM_INLINE inline __attribute__((always_inline))

enum : int32_t { kMagic = 0x4B400000 };  // the bits of 1.5 * 2^23

// Narrow with an even zero point and all of int8 allowed; with an even one; with an odd one; wide.
enum Rounding { kPlain, kEven, kOdd, kWide };

inline Rounding rounding_of(double bound, double result_bound, const Output& output) {
  if (bound >= 4.19e6 || result_bound >= 32000) return kWide;
  if (output.zero_point % 2) return kOdd;
  return output.lowest == -128 && output.highest == 127 ? kPlain : kEven;
}

template <class F>
F choose(Rounding way, F plain, F even, F odd, F wide) {
  return way == kPlain ? plain : way == kEven ? even : way == kOdd ? odd : wide;
}

struct Requant {
  float32x4_t magic, rounding;
  int16x8_t zero_point;
  int8x16_t low, high;

  explicit Requant(const Output& o)
      : magic(vreinterpretq_f32_s32(vdupq_n_s32(kMagic))),
        rounding(vaddq_f32(magic, vdupq_n_f32((float)(o.zero_point - (o.zero_point & 1))))),
        zero_point(vdupq_n_s16((int16_t)o.zero_point)),
        low(vdupq_n_s8((int8_t)o.lowest)),
        high(vdupq_n_s8((int8_t)o.highest)) {}
};

// What accumulators start with, from biases.
template <Rounding kWay>
ARM_INLINE int32x4_t started(int32x4_t bias) {
  return kWay == kWide ? bias : vaddq_s32(bias, vdupq_n_s32(kMagic));
}

// Four accumulators, times lane kLane of `scale` or (kLane < 0) lane by lane. Narrow: the low halves count.
template <Rounding kWay, int kLane>
ARM_INLINE int32x4_t rounded(const Requant& q, int32x4_t accumulator, float32x4_t scale) {
  const float32x4_t f =
      kWay == kWide ? vcvtq_f32_s32(accumulator) : vsubq_f32(vreinterpretq_f32_s32(accumulator), q.magic);
  float32x4_t product;
  if constexpr (kLane < 0)
    product = vmulq_f32(f, scale);
  else
    product = vmulq_laneq_f32(f, scale, kLane);
  if (kWay == kWide) return vcvtnq_s32_f32(product);
  return vreinterpretq_s32_f32(vaddq_f32(product, q.rounding));
}

template <Rounding kWay>
ARM_INLINE int16x8_t shifted(const Requant& q, int16x8_t x) {
  return kWay == kWide ? vqaddq_s16(x, q.zero_point) : kWay == kOdd ? vaddq_s16(x, vdupq_n_s16(1)) : x;
}

// Eight results: a0 a1 a2 a3 b0 b1 b2 b3.
template <Rounding kWay>
ARM_INLINE int16x8_t joined(const Requant& q, int32x4_t a, int32x4_t b) {
  if constexpr (kWay == kWide) return shifted<kWay>(q, vqmovn_high_s32(vqmovn_s32(a), b));
  return shifted<kWay>(q, vuzp1q_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)));
}

// Eight results: a0 b0 a1 b1 a2 b2 a3 b3.
template <Rounding kWay>
ARM_INLINE int16x8_t paired(const Requant& q, int32x4_t a, int32x4_t b) {
  if constexpr (kWay == kWide) {
    const int16x4_t x = vqmovn_s32(a), y = vqmovn_s32(b);
    return shifted<kWay>(q, vcombine_s16(vzip1_s16(x, y), vzip2_s16(x, y)));
  }
  return shifted<kWay>(q, vtrn1q_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)));
}

// Sixteen bytes, within the range of the fused activation.
template <Rounding kWay>
ARM_INLINE int8x16_t clamped(const Requant& q, int16x8_t a, int16x8_t b) {
  const int8x16_t x = vqmovn_high_s16(vqmovn_s16(a), b);
  return kWay == kPlain ? x : vmaxq_s8(vminq_s8(x, q.high), q.low);
}

}  // namespace
}  // namespace edgesparse
