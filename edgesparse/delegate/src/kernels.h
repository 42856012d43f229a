// The interface between the graph and the kernels of one instruction set.
//
// ## The sources
//   plugin.cc       options, which nodes are taken     claim.cc    what can be taken, and why not
//   weights.cc      dense and sparse weights           shapes.cc   inputs that are resized
//   build.cc        from nodes to steps                pack.cc     weights as kernels read them
//   buffers.cc      memory, shared by liveness         run.cc      runs the steps, in threads.cc
//   cpu.cc          which kernels this CPU can run     abi.h       TFLite's structs
//   plain_kernels.h all kernels in plain C++           portable.cc nothing else
//   vnni.h          for vpdpbusd: avx512vnni.cc (its depthwise apart), avxvnni.cc
//   avx2.cc, dotprod.cc, neon.cc; borders_x86.h, depthwise_rows_x86.h, arm_*.h: what some of them share
// Each .cc names its compiler flags in a comment, `flags:`, that build.py reads. Neither the C++ library nor
// exceptions are used.
//
// An instruction set is one constant of type `Kernels`: a description of its layout and functions. It may
// leave any function at the version of plain_kernels.h, which is correct for every layout and compiled
// with the flags of the file that includes it.
//
// ## Layout of a tensor in the chain
// One image of height x width pixels and C channels lies as ceil(C / 4) groups of four channels, each group
// as `planes` planes, each plane as `unit` bytes for each pixel, rows of pixels one after the other:
//
//   planes 1, unit 4, int8 or uint8   [C/4][pixel][4]        dot-product instructions (four bytes at once)
//   planes 2, unit 4, int16           [C/4][2][pixel][2]     AVX2: vpmaddwd multiplies pairs of int16
//   planes 2, unit 2, int8            [C/4][2][pixel][2]     NEON without dot product: pairs of bytes
//
// A stored element is `value + offset` (offset 128 with `element` 1: uint8, for vpdpbusd). A plane has
// plane_bytes() bytes: pixels rounded up to `vector`, and 64 bytes more where that would be a multiple of
// 1024 (or the planes would fall into the same few cache sets). Why this layout: a dot-product
// instruction takes four inputs of one pixel, as many pixels as a register holds lie side by side, and the
// result of four rows of weights is again one group: no transposition between nodes. NHWC exists at the
// borders only.
//
// Before and behind every tensor lie at least kMargin bytes that may be read (never written), and what lies
// between the last pixel and the end of its plane may be written.
//
// ## Exactness
// All kernels must give, bit for bit, what XNNPACK gives:
//   f = (float)accumulator * scale           one rounding each, no fused multiply-add
//   q = round to nearest even (f) + zero_point, clamped to [lowest, highest]
// Note that rounding comes before adding the zero point: round(f + zero_point) differs on ties when the
// zero point is odd. The accumulator is bias + sum of weight * stored element; the offset of stored elements
// and the zero point of the input are folded into `bias`. The graph refuses nodes in which |accumulator|
// could reach 2^31 or |f| 2^30; `bound` is the largest |accumulator| that can occur, for kernels that
// convert by adding magic numbers.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace edgesparse {

enum { kMargin = 512 };

struct Layout {
  int unit;     // bytes of a pixel in a plane: 4 or 2
  int planes;   // planes of a group of four channels: 1 or 2
  int element;  // bytes of a stored element: 1 or 2
  int offset;   // added to a value when it is stored: 0 or 128
  int vector;   // planes are padded to a multiple of so many pixels
};

static inline size_t plane_bytes(const Layout& layout, int pixels) {
  const size_t vectors = ((size_t)pixels + layout.vector - 1) / layout.vector;
  const size_t bytes = (vectors * layout.vector * layout.unit + 15) / 16 * 16;
  return bytes % 1024 ? bytes : bytes + 64;
}

static inline size_t group_bytes(const Layout& layout, int pixels) {
  return layout.planes * plane_bytes(layout, pixels);
}

// `unit` bytes that hold the same stored value in all channels.
static inline uint32_t repeated(const Layout& layout, int value) {
  value += layout.offset;
  return layout.element == 2 ? (uint32_t)(uint16_t)value * 0x10001u : (uint32_t)(uint8_t)value * 0x01010101u;
}

// Which results are allowed, in int8 values.
struct Output {
  int zero_point, lowest, highest;
};

// A sparse matrix that is multiplied with the pixels of a tensor: a 1x1 convolution, a KxK convolution as
// 1x1 over shifted copies of its padded input (each tap of the kernel is an offset), a fully connected layer.
//
// Rows (outputs) are stored in groups of `block` (1, 2 or 4) rows. A block is `block` rows x 4 inputs; only
// blocks that have a weight other than zero are stored, in ascending order of inputs, as they are read:
//   weights[block index][row of the block][4]   of int8 (element 1) or int16 (element 2)
//   offsets[block index]                        bytes from the first pixel of the input to the first pixel of
//                                               the four inputs (their first plane)
//   starts[row / block]                         index of a group's first block; rows / block + 1 entries
// Behind the last weight and offset lie kMargin bytes, so that they can be prefetched.
struct Matrix {
  int rows;   // a multiple of 4; rows without a channel have no blocks, bias 0 and scale 0
  int block;  // 1, 2, 4
  const int32_t* starts;
  const int32_t* offsets;
  const void* weights;
  const float* scale;   // [rows]
  const int32_t* bias;  // [rows], with zero point and offset folded in
  double bound;         // the largest |accumulator|
  double result_bound;  // the largest |accumulator * scale|
  bool lowest_weight;   // a weight is -128, of which two products with -128 do not fit into 16 bits
  Output output;
  size_t in_plane;   // plane_bytes of the input: the distance of a block's two planes
  size_t out_plane;  // plane_bytes of the output
  int pixels;        // of the output; a kernel works on whole vectors
};

// A depthwise convolution over one group of four channels, padded with the zero point: output pixel p is
// bias + sum over taps of weight * input[p + shift of the tap].
struct Depthwise {
  int taps;
  const int32_t* shifts;  // [taps], bytes
  const int8_t* weights;  // [group][taps][4]
  const void* packed;     // what pack_depthwise made of weights, or null
  const float* scale;     // [groups * 4]
  const int32_t* bias;    // [groups * 4]
  double bound, result_bound;
  bool lowest_weight;
  Output output;
  size_t in_plane, out_plane;
  int pixels;  // of the (wide) output
  // The geometry, for kernels of their own (depthwise_direct): padding is before the first row and column.
  int groups, height, width, out_height, out_width;
  int kernel_height, kernel_width, stride_height, stride_width, dilation_height, dilation_width;
  int pad_top, pad_left;
  int in_zero_point;
  const uint8_t* counts;  // [pixels], average pools: how many pixels of the input an output's window has
};

// q = clamp(round(a * multiplier_a + b * multiplier_b + bias >> shift) + zero_point): XNNPACK's addition.
struct Addition {
  int32_t multiplier_a, multiplier_b, bias;  // the rounding constant and the zero points are in the bias;
  int shift;                                 // it takes values without the layout's offset
  Output output;
};

// Copies pixels of each plane: out[y][x] = in[y * stride + top][x * stride + left], or the value `outside`
// where that lies beyond the input. With stride 2 a tensor becomes four phases, each made by one Spread.
struct Spread {
  int height, width;          // of the input
  int out_height, out_pitch;  // of the output; every pixel of a row up to out_pitch is written
  int stride_height, stride_width;
  int top, left;     // may be negative
  uint32_t outside;  // repeated(layout, zero point)
};

struct Kernels {
  const char* name;  // as in the option isa=
  Layout layout;
  int max_block;  // the largest `block` of Matrix

  // Cycles of a block (by log2 of its rows) for each vector of pixels; the graph picks the cheapest `block`.
  float cost[3];

  // Rows [row, row_end), multiples of 4, and vectors [vector, vector_end) of `layout.vector` pixels.
  void (*multiply)(const Matrix&, const uint8_t* in, uint8_t* out, int row, int row_end, int vector,
                   int vector_end);

  // One group: `padded` is its padded input (first pixel of output pixel 0's first tap), `out` its output.
  void (*depthwise)(const Depthwise&, int group, const uint8_t* padded, uint8_t* out);
  size_t (*packed_depthwise_bytes)(const Depthwise&);  // null: needs no packed weights
  void (*pack_depthwise)(const Depthwise&, void* packed);

  // Optional: a whole depthwise convolution without a padded copy, groups [group, group_end).
  // can_depthwise_direct says whether it takes this geometry and how many bytes of scratch it needs
  // (its own pack_depthwise output is in `packed`).
  bool (*can_depthwise_direct)(const Depthwise&, size_t* scratch_bytes);
  void (*depthwise_direct)(const Depthwise&, const uint8_t* in, uint8_t* out, int group, int group_end,
                           uint8_t* scratch);

  // All planes of `groups` groups, which lie in_plane and out_plane bytes apart.
  void (*spread)(const Spread&, int groups, const uint8_t* in, size_t in_plane, uint8_t* out, size_t out_plane);
  // out[y][x] = in[y][x] from rows of in_pitch to rows of width pixels: drops what lies between the rows.
  void (*compact)(int groups, int height, int width, int in_pitch, const uint8_t* in, size_t in_plane,
                  uint8_t* out, size_t out_plane);

  // NHWC int8 <-> chain, groups [group, group_end); channels beyond the last one hold anything in the chain.
  void (*from_nhwc)(const int8_t* in, int pixels, int channels, uint8_t* out, size_t plane, int group,
                    int group_end);
  void (*to_nhwc)(const uint8_t* in, size_t plane, int pixels, int channels, int8_t* out, int group,
                  int group_end);

  // Elementwise over `bytes` bytes of two tensors.
  void (*add)(const Addition&, const uint8_t* a, const uint8_t* b, uint8_t* out, size_t bytes);
  // One padded group: out[p] = max over taps of in[p + shift of the tap], clamped. scale and bias are unused.
  void (*max_pool)(const Depthwise&, const uint8_t* padded, uint8_t* out);
  // One group padded with value 0: out[p] = sum over taps / counts[p], rounded half away from zero, clamped.
  void (*average_pool)(const Depthwise&, const uint8_t* padded, uint8_t* out);
};

extern const Kernels portable_kernels;
#if defined(__x86_64__)
extern const Kernels avx512vnni_kernels, avxvnni_kernels, avx2_kernels;
#elif defined(__aarch64__)
extern const Kernels dotprod_kernels, neon_kernels;
#endif

}  // namespace edgesparse
