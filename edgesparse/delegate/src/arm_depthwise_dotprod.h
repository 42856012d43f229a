// Depthwise convolution with the dot product, four channels at a time.
//
// A group's input is [row][pixel][4]. A table look-up turns four neighbouring pixels into a window, [channel][4
// pixels]; one dot product with a row of the kernel then gives an output pixel of four channels. With stride 1 a
// window of pixels x..x+3 serves output x, with weights (w0, w1, w2, 0), and x + 1, with (0, w0, w1, w2).
// Columns of four output pixels are walked from top to bottom, with the windows of the rows above in registers;
// the last column ends with the row, so it may overlap the one before.
//
// 3 x 3 kernels with one pixel of padding read the input itself: windows at the edges come from a table that puts
// the zero point outside. Anything else reads a padded copy.
#pragma once

#include <type_traits>

#include "arm_copies.h"

namespace edgesparse {
namespace {

// One group of channels.
struct Plane {
  const int8_t* in;
  int8_t* out;
  size_t in_row, out_row;  // bytes
  int height;              // rows of the input
  int out_width, out_height;
  int pad;           // pixels of padding before the first column, 0 or 1; the kernel adds it
  bool top, right;   // whether it adds a row above, a column behind the last
  int8_t outside;    // the input's zero point
  const int8_t* weights;
  const int32_t* bias;  // four, as sums start
  float32x4_t scale;
  // Of any kernel:
  int kernel_height, windows, stride_height, stride_width, dilation_height;

  int column(int x) const { return out_width >= 4 && x > out_width - 4 ? out_width - 4 : x; }
};

// The bias comes from memory each time: the load pipes have nothing else to do, the vector pipes have.
ARM_INLINE int32x4_t reloaded(const int32_t* bias) {
  int32x4_t value;
  asm volatile("ldr %q0, [%1]" : "=w"(value) : "r"(bias));
  return value;
}

// Tables: windows from the middle of a row; from its first pixel, with one outside before it; from its last
// pixels, one or two outside behind them.
enum Edge { kInside, kBefore, kBehind, kBehind2 };
ARM_INLINE uint8x16_t window_table(Edge edge) {
  static const int8_t first[] = {0, -1, 1, 2};
  uint8_t order[16];
  for (int c = 0; c < 4; c++)
    for (int i = 0; i < 4; i++) {
      const int pixel = i + first[edge];
      order[c * 4 + i] = (uint8_t)(pixel < 0 || pixel > 3 ? 255 : pixel * 4 + c);
    }
  return vld1q_u8(order);
}

ARM_INLINE int8x16_t window(const int8_t* in, uint8x16_t table, int8x16_t outside) {
  return vqtbx1q_s8(outside, vld1q_s8(in), table);
}
ARM_INLINE int8x16_t window(const int8_t* in, uint8x16_t table) { return vqtbl1q_s8(vld1q_s8(in), table); }

template <Rounding kWay>
ARM_INLINE void finish(const Requant& q, const int32x4_t (&sum)[4], float32x4_t scale, int8_t* out) {
  const auto two = [&](int i) __attribute__((always_inline)) {
    return joined<kWay>(q, rounded<kWay, -1>(q, sum[i], scale), rounded<kWay, -1>(q, sum[i + 1], scale));
  };
  vst1q_s8(out, clamped<kWay>(q, two(0), two(2)));
}

// Kernels copy their arguments: what lies in memory would be read again after each store of bytes.

// 3 x 3, stride 1. Weights: for each row of the kernel (w0 w1 w2 0) and (0 w0 w1 w2) of four channels.
template <Rounding kWay>
__attribute__((noinline)) void depthwise_3x3_1(const Plane& plane, const Requant& requant) {
  const Plane p = plane;
  const Requant q = requant;
  const uint8x16_t inside = window_table(kInside), before = window_table(kBefore), behind = window_table(kBehind);
  const int8x16_t outside = vdupq_n_s8(p.outside);
  int8x16_t w[3][2];
  for (int k = 0; k < 3; k++)
    for (int i = 0; i < 2; i++) w[k][i] = vld1q_s8(p.weights + 32 * k + 16 * i);
  struct Windows {
    int8x16_t left, right;
  };
  const auto walk = [&](int x, auto at_left, auto at_right) __attribute__((always_inline)) {
    const int8_t* left = p.in + 4 * (at_left ? 0 : x - p.pad);
    const int8_t* right = p.in + 4 * (at_right ? x - p.pad + 1 : x - p.pad + 2);
    int8_t* out = p.out + 4 * x;
    int rows = p.height;  // that were not read yet
    const auto next = [&]() __attribute__((always_inline)) {
      const Windows v = {at_left ? window(left, before, outside) : window(left, inside),
                         at_right ? window(right, behind, outside) : window(right, inside)};
      left += p.in_row, right += p.in_row, rows--;
      return v;
    };
    const auto row = [&](const Windows& a, const Windows& b, const Windows& c) __attribute__((always_inline)) {
      int32x4_t sum[4];
      for (int i = 0; i < 4; i++) sum[i] = reloaded(p.bias);
      const Windows* lines[3] = {&a, &b, &c};
#pragma clang loop unroll(full)
      for (int k = 0; k < 3; k++) {
        sum[0] = vdotq_s32(sum[0], lines[k]->left, w[k][0]);
        sum[1] = vdotq_s32(sum[1], lines[k]->left, w[k][1]);
        sum[2] = vdotq_s32(sum[2], lines[k]->right, w[k][0]);
        sum[3] = vdotq_s32(sum[3], lines[k]->right, w[k][1]);
      }
      finish<kWay>(q, sum, p.scale, out);
      out += p.out_row;
    };
    const Windows none = {outside, outside};
    Windows a = p.top ? none : next();
    Windows b = rows > 0 ? next() : none;
    int y = 0;
    for (; y + 3 <= p.out_height && rows >= 3; y += 3) {
      const Windows c = next();
      row(a, b, c);
      a = next();
      row(b, c, a);
      b = next();
      row(c, a, b);
    }
    for (; y < p.out_height; y++) {
      const Windows c = rows > 0 ? next() : none;
      row(a, b, c);
      a = b, b = c;
    }
  };
  const std::true_type yes;
  const std::false_type no;
  for (int first = 0; first < p.out_width; first += 4) {
    const int x = p.column(first);
    const bool left = p.pad && x == 0, right = p.right && first + 4 >= p.out_width;
    if (left)
      right ? walk(x, yes, yes) : walk(x, yes, no);
    else
      right ? walk(x, no, yes) : walk(x, no, no);
  }
}

// 3 x 3, stride 2: each output has a window of its own. Weights: as with stride 1.
template <Rounding kWay>
__attribute__((noinline)) void depthwise_3x3_2(const Plane& plane, const Requant& requant) {
  const Plane p = plane;
  const Requant q = requant;
  const uint8x16_t inside = window_table(kInside);
  const uint8x16_t start = p.pad ? window_table(kBefore) : inside;  // of the first window of the first column
  const uint8x16_t end = p.right ? window_table(kBehind2) : inside;
  const int8x16_t outside = vdupq_n_s8(p.outside);
  const int8x16_t w[3] = {vld1q_s8(p.weights), vld1q_s8(p.weights + 32), vld1q_s8(p.weights + 64)};
  const auto walk = [&](int x, auto at_edge) __attribute__((always_inline)) {
    const bool at_left = at_edge && x == 0 && p.pad, at_right = at_edge && p.right && x + 4 >= p.out_width;
    const int8_t* in = p.in + 4 * (2 * x - p.pad);
    const int8_t* first = in + (at_left ? 4 : 0);
    const int8_t* last = in + (at_right ? 16 : 24);
    const uint8x16_t first_table = at_left ? start : inside, last_table = at_right ? end : inside;
    int8_t* out = p.out + 4 * x;
    int rows = p.height;
    const auto next = [&](int8x16_t(&v)[4]) __attribute__((always_inline)) {
      v[1] = window(in + 8, inside), v[2] = window(in + 16, inside);
      v[0] = at_edge ? window(first, first_table, outside) : window(in, inside);
      v[3] = at_edge ? window(last, last_table, outside) : window(in + 24, inside);
      in += p.in_row, rows--;
      if (at_edge) first += p.in_row, last += p.in_row;
    };
    const auto next_if_any = [&](int8x16_t(&v)[4]) __attribute__((always_inline)) {
      if (rows > 0) return next(v);
      for (int i = 0; i < 4; i++) v[i] = outside;
    };
    const auto row = [&](const int8x16_t(&a)[4], const int8x16_t(&b)[4], const int8x16_t(&c)[4])
        __attribute__((always_inline)) {
      int32x4_t sum[4];
#pragma clang loop unroll(full)
      for (int i = 0; i < 4; i++)
        sum[i] = vdotq_s32(vdotq_s32(vdotq_s32(reloaded(p.bias), a[i], w[0]), b[i], w[1]), c[i], w[2]);
      finish<kWay>(q, sum, p.scale, out);
      out += p.out_row;
    };
    int8x16_t a[4] = {outside, outside, outside, outside}, b[4], c[4];
    if (!p.top) next(a);
    int y = 0;
    for (; y + 2 <= p.out_height && rows >= 4; y += 2) {
      next(b), next(c);
      row(a, b, c);
      next(b), next(a);
      row(c, b, a);
    }
    for (; y < p.out_height; y++) {
      next_if_any(b), next_if_any(c);
      row(a, b, c);
      for (int i = 0; i < 4; i++) a[i] = c[i];
    }
  };
  const std::true_type yes;
  const std::false_type no;
  for (int first = 0; first < p.out_width; first += 4) {
    const int x = p.column(first);
    (p.pad && x == 0) || (p.right && first + 4 >= p.out_width) ? walk(x, yes) : walk(x, no);
  }
}

// Any kernel, of a padded copy. Weights: for each of its rows and each window of four pixels, what they add to
// each of four outputs, [output][channel][4 pixels].
template <Rounding kWay>
__attribute__((noinline)) void depthwise_any(const Plane& plane, const Requant& requant) {
  const Plane p = plane;
  const Requant q = requant;
  const uint8x16_t inside = window_table(kInside);
  const int32x4_t bias = vld1q_s32(p.bias);
  for (int first = 0; first < p.out_width; first += 4) {
    const int x = p.column(first);
    for (int y = 0; y < p.out_height; y++) {
      const int8_t* w = p.weights;
      const int8_t* in = p.in + (size_t)y * p.stride_height * p.in_row + (size_t)x * p.stride_width * 4;
      int32x4_t sum[4] = {bias, bias, bias, bias};
      for (int k = 0; k < p.kernel_height; k++, in += (size_t)p.dilation_height * p.in_row)
        for (int v = 0; v < p.windows; v++, w += 64) {
          const int8x16_t pixels = window(in + 16 * v, inside);
#pragma clang loop unroll(full)
          for (int i = 0; i < 4; i++) sum[i] = vdotq_s32(sum[i], pixels, vld1q_s8(w + 16 * i));
        }
      finish<kWay>(q, sum, p.scale, p.out + (size_t)y * p.out_row + 4 * x);
    }
  }
}

bool is_3x3(const Depthwise& d) {
  return d.kernel_height == 3 && d.kernel_width == 3 && d.dilation_height == 1 && d.dilation_width == 1 &&
         d.stride_height == d.stride_width && d.stride_width <= 2;
}

// Whether a kernel of 3 x 3 adds the padding of this geometry itself.
bool reads_input(const Depthwise& d) {
  if (!is_3x3(d) || d.out_width < 4 || d.pad_left > 1 || d.pad_top > 1) return false;
  const int behind = (d.out_width - 1) * d.stride_width + 3 - d.pad_left - d.width;
  const int below = (d.out_height - 1) * d.stride_height + 3 - d.pad_top - d.height;
  if (d.stride_width == 1) return d.pad_left == 1 && behind == 1 && below <= 1;
  return d.width >= 8 && (behind == 0 || behind == 1) && below <= 1;
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

// Size of the padded copy; its rows have as many pixels as the last column's windows reach.
struct Size {
  int rows, pitch;
};
Size padded_size(const Depthwise& d) {
  const int width = d.out_width < 4 ? 4 : d.out_width;
  const int reach = (width - 1) * d.stride_width + (d.kernel_width - 1) * d.dilation_width + 1;
  const int read = (width - 4) * d.stride_width + windows_of(d) * 4, inside = d.width + d.pad_left;
  const int pitch = reach > read ? reach : read;
  return {(d.out_height - 1) * d.stride_height + (d.kernel_height - 1) * d.dilation_height + 1,
          (pitch > inside ? pitch : inside) + 4};
}

bool can_depthwise_direct(const Depthwise& d, size_t* scratch_bytes) {
  const Size p = padded_size(d);
  *scratch_bytes = reads_input(d) ? 0 : (size_t)p.rows * p.pitch * 4 + (size_t)d.out_height * 16 + 64;
  return windows_of(d) <= 16;
}

void depthwise_direct(const Depthwise& d, const uint8_t* in, uint8_t* out, int group, int group_end,
                      uint8_t* scratch) {
  const Requant q(d.output);
  const Rounding way = rounding_of(d.bound, d.result_bound, d.output);
#define ALL(f) choose(way, f<kPlain>, f<kEven>, f<kOdd>, f<kWide>)
  const auto kernel = !is_3x3(d)           ? ALL(depthwise_any)
                      : d.stride_width == 1 ? ALL(depthwise_3x3_1)
                                            : ALL(depthwise_3x3_2);
#undef ALL
  const bool direct = reads_input(d);
  const Size size = padded_size(d);
  const size_t row = (size_t)(direct ? d.width : size.pitch) * 4, weights = packed_depthwise_bytes(d) / d.groups;
  // Images narrower than a column: its rows would be written over the end of the plane.
  int8_t* column = d.out_width < 4 ? (int8_t*)scratch + (size_t)size.rows * row : nullptr;
  if (!direct) Pixels<4>::fill(scratch, size.rows * size.pitch, (uint8_t)d.in_zero_point * 0x01010101u);
  const int rows = d.height < size.rows - d.pad_top ? d.height : size.rows - d.pad_top;
  int32_t bias[4];
  Plane p = {};
  p.in_row = row, p.out_row = column ? 16 : (size_t)d.out_width * 4;
  p.height = direct ? d.height : size.rows, p.out_width = d.out_width, p.out_height = d.out_height;
  p.pad = direct ? d.pad_left : 0, p.top = direct && d.pad_top;
  p.right = direct && (d.out_width - 1) * d.stride_width + 3 - d.pad_left > d.width;
  p.outside = (int8_t)d.in_zero_point, p.bias = bias;
  p.kernel_height = d.kernel_height, p.windows = windows_of(d);
  p.stride_height = d.stride_height, p.stride_width = d.stride_width, p.dilation_height = d.dilation_height;
  for (int g = group; g < group_end; g++) {
    const uint8_t* from = in + (size_t)g * d.in_plane;
    int8_t* result = (int8_t*)out + (size_t)g * d.out_plane;
    uint8_t* to = scratch + (size_t)d.pad_top * row + (size_t)d.pad_left * 4;
    p.in = (const int8_t*)(direct ? from : scratch);
    if (!direct)
      for (int y = 0; y < rows; y++, from += (size_t)d.width * 4, to += row) Pixels<4>::copy(to, from, d.width, 1);
    vst1q_s32(bias, way == kWide ? vld1q_s32(d.bias + g * 4) : started<kEven>(vld1q_s32(d.bias + g * 4)));
    p.out = column ? column : result, p.weights = (const int8_t*)d.packed + g * weights;
    p.scale = vld1q_f32(d.scale + g * 4);
    kernel(p, q);
    if (column)
      for (int y = 0; y < d.out_height; y++) memcpy(result + y * d.out_width * 4, column + y * 16, d.out_width * 4);
  }
}

}  // namespace
}  // namespace edgesparse
