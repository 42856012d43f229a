// Depthwise convolution with the dot product, four channels at a time.
//
// A group's input is copied into a padded plane, [row][pixel][4]. A table look-up turns four neighbouring pixels
// into a window, [channel][4 pixels]; one dot product with a row of the kernel then gives an output pixel of four
// channels. With stride 1 a window of pixels x..x+3 serves output x, with weights (w0, w1, w2, 0), and x + 1,
// with (0, w0, w1, w2). Columns of four output pixels are walked from top to bottom, with the windows of the
// rows above in registers; the last column ends with the row, so it may overlap the one before.
#pragma once

#include "arm_copies.h"

namespace edgesparse {
namespace {

// One group of channels.
struct Plane {
  const int8_t* in;  // padded, rows in_row bytes apart
  int8_t* out;
  size_t in_row, out_row;
  int width, height;  // of the output
  const int8_t* weights;
  const int32_t* bias;  // four, as sums start
  float32x4_t scale;
  // Of any kernel:
  int kernel_height, windows, stride_height, stride_width, dilation_height;

  int column(int x) const { return width >= 4 && x > width - 4 ? width - 4 : x; }
};

// The bias comes from memory each time: the load pipes have nothing else to do, the vector pipes have.
ARM_INLINE int32x4_t reloaded(const int32_t* bias) {
  int32x4_t value;
  asm volatile("ldr %q0, [%1]" : "=w"(value) : "r"(bias));
  return value;
}

ARM_INLINE uint8x16_t window_order() {
  static const uint8_t order[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  return vld1q_u8(order);
}

template <bool kWide>
ARM_INLINE void finish(const Requant& q, const int32x4_t (&sum)[4], float32x4_t scale, int8_t* out) {
  const auto two = [&](int i) __attribute__((always_inline)) {
    return joined<kWide>(q, rounded<kWide, -1>(q, sum[i], scale), rounded<kWide, -1>(q, sum[i + 1], scale));
  };
  vst1q_s8(out, clamped(q, two(0), two(2)));
}

// 3 x 3, stride 1. Weights: for each row of the kernel (w0 w1 w2 0) and (0 w0 w1 w2) of four channels.
template <bool kWide>
__attribute__((noinline)) void depthwise_3x3_1(const Plane& p, const Requant& q) {
  const uint8x16_t order = window_order();
  int8x16_t w[3][2];
  for (int k = 0; k < 3; k++)
    for (int i = 0; i < 2; i++) w[k][i] = vld1q_s8(p.weights + 32 * k + 16 * i);
  struct Windows {
    int8x16_t left, right;
  };
  for (int first = 0; first < p.width; first += 4) {
    const int x = p.column(first);
    const int8_t* in = p.in + 4 * x;
    int8_t* out = p.out + 4 * x;
    const auto next = [&]() __attribute__((always_inline)) {
      const Windows v = {vqtbl1q_s8(vld1q_s8(in), order), vqtbl1q_s8(vld1q_s8(in + 8), order)};
      in += p.in_row;
      return v;
    };
    const auto row = [&](const Windows& a, const Windows& b, const Windows& c) __attribute__((always_inline)) {
      int32x4_t sum[4];
      for (int i = 0; i < 4; i++) sum[i] = reloaded(p.bias);
      const Windows* rows[3] = {&a, &b, &c};
#pragma clang loop unroll(full)
      for (int k = 0; k < 3; k++) {
        sum[0] = vdotq_s32(sum[0], rows[k]->left, w[k][0]);
        sum[1] = vdotq_s32(sum[1], rows[k]->left, w[k][1]);
        sum[2] = vdotq_s32(sum[2], rows[k]->right, w[k][0]);
        sum[3] = vdotq_s32(sum[3], rows[k]->right, w[k][1]);
      }
      finish<kWide>(q, sum, p.scale, out);
      out += p.out_row;
    };
    Windows a = next(), b = next();
    int y = 0;
    for (; y + 3 <= p.height; y += 3) {
      const Windows c = next();
      row(a, b, c);
      a = next();
      row(b, c, a);
      b = next();
      row(c, a, b);
    }
    for (; y < p.height; y++) {
      const Windows c = next();
      row(a, b, c);
      a = b, b = c;
    }
  }
}

// 3 x 3, stride 2: each output has a window of its own. Weights: as with stride 1.
template <bool kWide>
__attribute__((noinline)) void depthwise_3x3_2(const Plane& p, const Requant& q) {
  const uint8x16_t order = window_order();
  const int8x16_t w[3] = {vld1q_s8(p.weights), vld1q_s8(p.weights + 32), vld1q_s8(p.weights + 64)};
  for (int first = 0; first < p.width; first += 4) {
    const int x = p.column(first);
    const int8_t* in = p.in + 8 * x;
    int8_t* out = p.out + 4 * x;
    const auto next = [&](int8x16_t(&windows)[4]) __attribute__((always_inline)) {
#pragma clang loop unroll(full)
      for (int i = 0; i < 4; i++) windows[i] = vqtbl1q_s8(vld1q_s8(in + 8 * i), order);
      in += p.in_row;
    };
    const auto row = [&](const int8x16_t(&a)[4], const int8x16_t(&b)[4], const int8x16_t(&c)[4])
        __attribute__((always_inline)) {
      int32x4_t sum[4];
#pragma clang loop unroll(full)
      for (int i = 0; i < 4; i++)
        sum[i] = vdotq_s32(vdotq_s32(vdotq_s32(reloaded(p.bias), a[i], w[0]), b[i], w[1]), c[i], w[2]);
      finish<kWide>(q, sum, p.scale, out);
      out += p.out_row;
    };
    int8x16_t a[4], b[4], c[4];
    next(a);
    int y = 0;
    for (; y + 2 <= p.height; y += 2) {
      next(b), next(c);
      row(a, b, c);
      next(b), next(a);
      row(c, b, a);
    }
    if (y < p.height) {
      next(b), next(c);
      row(a, b, c);
    }
  }
}

// Any kernel. Weights: for each of its rows and each window of four pixels, what they add to each of four
// outputs, [output][channel][4 pixels].
template <bool kWide>
__attribute__((noinline)) void depthwise_any(const Plane& p, const Requant& q) {
  const uint8x16_t order = window_order();
  for (int first = 0; first < p.width; first += 4) {
    const int x = p.column(first);
    for (int y = 0; y < p.height; y++) {
      const int8_t* w = p.weights;
      const int8_t* in = p.in + (size_t)y * p.stride_height * p.in_row + (size_t)x * p.stride_width * 4;
      const int32x4_t bias = vld1q_s32(p.bias);
      int32x4_t sum[4] = {bias, bias, bias, bias};
      for (int k = 0; k < p.kernel_height; k++, in += (size_t)p.dilation_height * p.in_row)
        for (int v = 0; v < p.windows; v++, w += 64) {
          const int8x16_t window = vqtbl1q_s8(vld1q_s8(in + 16 * v), order);
#pragma clang loop unroll(full)
          for (int i = 0; i < 4; i++) sum[i] = vdotq_s32(sum[i], window, vld1q_s8(w + 16 * i));
        }
      finish<kWide>(q, sum, p.scale, p.out + (size_t)y * p.out_row + 4 * x);
    }
  }
}

bool is_3x3(const Depthwise& d) {
  return d.kernel_height == 3 && d.kernel_width == 3 && d.dilation_height == 1 && d.dilation_width == 1 &&
         d.stride_height == d.stride_width && d.stride_width <= 2;
}

// Windows of four pixels under four neighbouring outputs.
int windows_of(const Depthwise& d) {
  return (3 * d.stride_width + (d.kernel_width - 1) * d.dilation_width + 1 + 3) / 4;
}

size_t packed_depthwise_bytes(const Depthwise& d) {
  return (size_t)d.groups * (is_3x3(d) ? 96 : d.kernel_height * windows_of(d) * 64);
}

void pack_depthwise(const Depthwise& d, void* packed) {
  int8_t* out = (int8_t*)packed;  // zero
  const int windows = windows_of(d);
  for (int g = 0; g < d.groups; g++)
    for (int ky = 0; ky < d.kernel_height; ky++, out += is_3x3(d) ? 32 : windows * 64)
      for (int kx = 0; kx < d.kernel_width; kx++)
        for (int c = 0; c < 4; c++) {
          const int8_t w = d.weights[((size_t)g * d.taps + ky * d.kernel_width + kx) * 4 + c];
          if (is_3x3(d)) {
            out[c * 4 + kx] = out[16 + c * 4 + kx + 1] = w;
            continue;
          }
          for (int i = 0; i < 4; i++) {
            const int x = i * d.stride_width + kx * d.dilation_width;
            out[x / 4 * 64 + i * 16 + c * 4 + x % 4] = w;
          }
        }
}

// Size of the padded plane; its rows have as many pixels as the last column's windows reach.
struct Padding2d {
  int rows, pitch;
};
Padding2d padding_of(const Depthwise& d) {
  const int width = d.out_width < 4 ? 4 : d.out_width;
  const int reach = (width - 1) * d.stride_width + (d.kernel_width - 1) * d.dilation_width + 1;
  const int read = (width - 4) * d.stride_width + windows_of(d) * 4, inside = d.width + d.pad_left;
  const int pitch = reach > read ? reach : read;
  return {(d.out_height - 1) * d.stride_height + (d.kernel_height - 1) * d.dilation_height + 1,
          (pitch > inside ? pitch : inside) + 4};
}

bool can_depthwise_direct(const Depthwise& d, size_t* scratch_bytes) {
  const Padding2d p = padding_of(d);
  *scratch_bytes = (size_t)p.rows * p.pitch * 4 + (size_t)d.out_height * 16 + 64;
  return windows_of(d) <= 16;
}

void depthwise_direct(const Depthwise& d, const uint8_t* in, uint8_t* out, int group, int group_end,
                      uint8_t* scratch) {
  const Requant q(d.output);
  const bool wide = is_wide(d.bound, d.result_bound), three = is_3x3(d);
  const Padding2d size = padding_of(d);
  const size_t row = (size_t)size.pitch * 4, weights = packed_depthwise_bytes(d) / d.groups;
  // Images narrower than a column: its rows would be written over the end of the plane.
  int8_t* column = d.out_width < 4 ? (int8_t*)scratch + (size_t)size.rows * row : nullptr;
  const auto kernel = !three              ? wide ? depthwise_any<true> : depthwise_any<false>
                      : d.stride_width == 1 ? wide ? depthwise_3x3_1<true> : depthwise_3x3_1<false>
                                            : wide ? depthwise_3x3_2<true> : depthwise_3x3_2<false>;
  Pixels<4>::fill(scratch, size.rows * size.pitch, (uint8_t)d.in_zero_point * 0x01010101u);
  const int rows = d.height < size.rows - d.pad_top ? d.height : size.rows - d.pad_top;
  for (int g = group; g < group_end; g++) {
    const uint8_t* from = in + (size_t)g * d.in_plane;
    uint8_t* to = scratch + (size_t)d.pad_top * row + (size_t)d.pad_left * 4;
    for (int y = 0; y < rows; y++, from += (size_t)d.width * 4, to += row) Pixels<4>::copy(to, from, d.width, 1);
    int8_t* result = (int8_t*)out + (size_t)g * d.out_plane;
    int32_t bias[4];
    vst1q_s32(bias, wide ? started<true>(vld1q_s32(d.bias + g * 4)) : started<false>(vld1q_s32(d.bias + g * 4)));
    kernel(Plane{(const int8_t*)scratch, column ? column : result, row, column ? 16 : (size_t)d.out_width * 4,
                 d.out_width, d.out_height, (const int8_t*)d.packed + g * weights, bias,
                 vld1q_f32(d.scale + g * 4), d.kernel_height, windows_of(d), d.stride_height, d.stride_width,
                 d.dilation_height},
           q);
    if (column)
      for (int y = 0; y < d.out_height; y++) memcpy(result + y * d.out_width * 4, column + y * 16, d.out_width * 4);
  }
}

}  // namespace
}  // namespace edgesparse
