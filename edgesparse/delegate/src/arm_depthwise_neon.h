// Depthwise convolution without the dot product: eight pixels of two channels at a time.
//
// A pair of channels is copied into a padded plane, [row][phase][column][2], its columns split by their remainder
// modulo the stride: the pixels under one weight then lie side by side for neighbouring outputs. Products of two
// taps fit into 16 bits together, since no weight is -128, and are then added to 32-bit sums. The last column of
// eight pixels ends with the row, so it may overlap the one before.
#pragma once

#include "arm_copies.h"

namespace edgesparse {
namespace {

// Two channels.
struct Plane {
  const int8_t* in;
  int8_t* out;
  size_t in_row, out_row;  // bytes from one output row to the next
  int out_width, out_height;
  int taps;
  const int32_t* shifts;  // of taps, bytes
  const int8_t* weights;  // [taps], 4 bytes apart
  int32x4_t bias;         // of channels 0 1 0 1, as sums start
  float32x4_t scale;

  int column(int x) const { return out_width >= 8 && x > out_width - 8 ? out_width - 8 : x; }
};

ARM_INLINE void add_products(int32x4_t (&sum)[4], int16x8_t low, int16x8_t high) {
  sum[0] = vaddw_s16(sum[0], vget_low_s16(low));
  sum[1] = vaddw_high_s16(sum[1], low);
  sum[2] = vaddw_s16(sum[2], vget_low_s16(high));
  sum[3] = vaddw_high_s16(sum[3], high);
}

// kTaps: how many there are; their weights stay in registers then. 0: any number.
template <Rounding kWay, int kTaps>
__attribute__((noinline)) void depthwise_plane(const Plane& plane, const Requant& requant) {
  const Plane p = plane;  // copies: what lies in memory would be read again after each store of bytes
  const Requant q = requant;
  int8x16_t kept[kTaps ? kTaps : 1];
  const int8_t* from[kTaps ? kTaps : 1];
  for (int t = 0; t < kTaps; t++) {
    kept[t] = vreinterpretq_s8_s16(vld1q_dup_s16((const int16_t*)(p.weights + 4 * t)));
    from[t] = p.in + p.shifts[t];
  }
  const auto weight = [&](int t) __attribute__((always_inline)) {
    return kTaps ? kept[t] : vreinterpretq_s8_s16(vld1q_dup_s16((const int16_t*)(p.weights + 4 * t)));
  };
  const int taps = kTaps ? kTaps : p.taps;
  for (int y = 0; y < p.out_height; y++)
    for (int first = 0; first < p.out_width; first += 8) {
      const size_t x = (size_t)p.column(first) * 2, at = (size_t)y * p.in_row + x;
      const auto load = [&](int t) __attribute__((always_inline)) {
        return vld1q_s8((kTaps ? from[t] : p.in + p.shifts[t]) + at);
      };
      int32x4_t sum[4] = {p.bias, p.bias, p.bias, p.bias};
#pragma clang loop unroll_count(4)
      for (int t = 0; t + 1 < taps; t += 2) {
        const int8x16_t a = load(t), b = load(t + 1), wa = weight(t), wb = weight(t + 1);
        add_products(sum,
                     vmlal_s8(vmull_s8(vget_low_s8(a), vget_low_s8(wa)), vget_low_s8(b), vget_low_s8(wb)),
                     vmlal_high_s8(vmull_high_s8(a, wa), b, wb));
      }
      if (taps % 2) {
        const int8x16_t a = load(taps - 1), w = weight(taps - 1);
        add_products(sum, vmull_s8(vget_low_s8(a), vget_low_s8(w)), vmull_high_s8(a, w));
      }
      const auto eight = [&](int i) __attribute__((always_inline)) {
        return joined<kWay>(q, rounded<kWay, -1>(q, sum[i], p.scale), rounded<kWay, -1>(q, sum[i + 1], p.scale));
      };
      vst1q_s8(p.out + (size_t)y * p.out_row + x, clamped<kWay>(q, eight(0), eight(2)));
    }
}

// The padded plane: columns of each phase, and bytes of a row of all phases.
struct Size {
  int rows, columns;
  size_t row;
};
Size padded_size(const Depthwise& d) {
  const int width = d.out_width < 8 ? 8 : d.out_width, reach = (d.kernel_width - 1) * d.dilation_width;
  const int inside = (d.width + d.pad_left) / d.stride_width + 1;
  int columns = width + reach / d.stride_width;
  columns = (columns > inside ? columns : inside) + 8;
  return {(d.out_height - 1) * d.stride_height + (d.kernel_height - 1) * d.dilation_height + 1, columns,
          (size_t)columns * d.stride_width * 2};
}

bool can_depthwise_direct(const Depthwise& d, size_t* scratch_bytes) {
  const Size s = padded_size(d);
  *scratch_bytes = s.rows * s.row + (size_t)d.out_height * 16 + sizeof(int32_t) * (size_t)d.taps + 64;
  return !d.lowest_weight;
}

// `rows` rows of pixels into the phases of the padded plane, `out` being the first row that is not padding.
template <int kStride>
void split_rows(const Depthwise& d, const Size& size, int rows, const uint8_t* in, uint8_t* out) {
  const int stride = kStride ? kStride : d.stride_width, width = d.width;
  for (int i = 0; i < stride && i < width; i++) {  // pixels i, i + stride, ...
    const int first = i + d.pad_left, count = (width - i + stride - 1) / stride;
    const uint8_t* from = in + 2 * i;
    uint8_t* to = out + ((size_t)(first % stride) * size.columns + first / stride) * 2;
    for (int y = 0; y < rows; y++, from += (size_t)width * 2, to += size.row)
      Pixels<2>::copy(to, from, count, stride);
  }
}

template <Rounding kWay>
void depthwise_groups(const Depthwise& d, const uint8_t* in, uint8_t* out, int group, int group_end,
                      uint8_t* scratch) {
  const Requant q(d.output);
  const Size size = padded_size(d);
  // Images narrower than a column: its rows would be written over the end of the plane.
  int8_t* column = d.out_width < 8 ? (int8_t*)scratch + size.rows * size.row : nullptr;
  int32_t* shifts = (int32_t*)(scratch + (size.rows * size.row + (size_t)d.out_height * 16 + 15) / 16 * 16);
  for (int ky = 0; ky < d.kernel_height; ky++)
    for (int kx = 0; kx < d.kernel_width; kx++) {
      const int x = kx * d.dilation_width;
      shifts[ky * d.kernel_width + kx] =
          (int32_t)((size_t)ky * d.dilation_height * size.row +
                    ((size_t)(x % d.stride_width) * size.columns + x / d.stride_width) * 2);
    }
  Pixels<2>::fill(scratch, (int)(size.rows * size.row / 2), (uint8_t)d.in_zero_point * 0x0101u);
  const int rows = d.height < size.rows - d.pad_top ? d.height : size.rows - d.pad_top;
  const auto split = d.stride_width == 1 ? split_rows<1> : d.stride_width == 2 ? split_rows<2> : split_rows<0>;
  Plane p = {};
  p.in = (const int8_t*)scratch, p.in_row = size.row * d.stride_height;
  p.out_row = column ? 16 : (size_t)d.out_width * 2;
  p.out_width = d.out_width, p.out_height = d.out_height, p.taps = d.taps, p.shifts = shifts;
  for (int i = group * 2; i < group_end * 2; i++) {  // planes
    const uint8_t* from = in + (size_t)i * d.in_plane;
    split(d, size, rows, from, scratch + d.pad_top * size.row);
    int8_t* result = (int8_t*)out + (size_t)i * d.out_plane;
    p.out = column ? column : result;
    p.weights = d.weights + (size_t)(i / 2) * d.taps * 4 + i % 2 * 2;
    p.bias = started<kWay>(vreinterpretq_s32_s64(vld1q_dup_s64((const int64_t*)(d.bias + i * 2))));
    p.scale = vreinterpretq_f32_s64(vld1q_dup_s64((const int64_t*)(d.scale + i * 2)));
    (d.taps == 9 ? depthwise_plane<kWay, 9> : depthwise_plane<kWay, 0>)(p, q);
    if (column)
      for (int y = 0; y < d.out_height; y++) memcpy(result + y * d.out_width * 2, column + y * 16, d.out_width * 2);
  }
}

void depthwise_direct(const Depthwise& d, const uint8_t* in, uint8_t* out, int group, int group_end,
                      uint8_t* scratch) {
  choose(rounding_of(d.bound, d.result_bound, d.output), depthwise_groups<kPlain>, depthwise_groups<kEven>,
         depthwise_groups<kOdd>, depthwise_groups<kWide>)(d, in, out, group, group_end, scratch);
}

}  // namespace
}  // namespace edgesparse
