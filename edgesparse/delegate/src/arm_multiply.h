// The sparse matrix product on Arm, with the dot product (Cortex-A76) or without (A72, A53).
//
// A tile is some pixels of a range of rows. Its sums stay in registers: for each block of R rows x 4 inputs
// the pixels are loaded once and multiplied R times; the weights stand in the lanes of one register. Results of
// neighbouring rows are interleaved by the very instructions that narrow them, so that they come out in the
// layout of the next node.
//
// Without the dot product, two products of int8 fit into 16 bits (127 * 128 * 2 < 2^15, and the caller sees to
// it that no weight is -128): smull and smlal take inputs 0 and 1 of a pixel together with 2 and 3, and
// sadalp adds pairs of lanes to the sums.
#pragma once

#include "arm_requant.h"

namespace edgesparse {
namespace {

#ifdef __ARM_FEATURE_DOTPROD
enum { kSums = 1, kPlanes = 1 };  // vectors of sums for each vector of pixels: 4 pixels x 4 channels
#else
enum { kSums = 2, kPlanes = 2 };  // 8 pixels x 2 channels
#endif
enum { kAhead = 1024 };  // bytes: weights that are not in the cache come at the speed of memory

template <int N>
struct Constant {
  static constexpr int value = N;
};

// Adds one block; its weights are the lanes of `weights` from kFirst on.
template <int R, int V, int kFirst>
ARM_INLINE void add_block(int32x4_t (&sum)[R][V * kSums], const int8_t* in, size_t plane, int8x16_t weights) {
#ifdef __ARM_FEATURE_DOTPROD
#pragma clang loop unroll(full)
  for (int v = 0; v < V; v++) {
    const int8x16_t x = vld1q_s8(in + v * 16);
    sum[0][v] = vdotq_laneq_s32(sum[0][v], x, weights, kFirst);
    if constexpr (R > 1) sum[1][v] = vdotq_laneq_s32(sum[1][v], x, weights, (kFirst + 1) % 4);
    if constexpr (R > 2) sum[2][v] = vdotq_laneq_s32(sum[2][v], x, weights, (kFirst + 2) % 4);
    if constexpr (R > 2) sum[3][v] = vdotq_laneq_s32(sum[3][v], x, weights, (kFirst + 3) % 4);
  }
#else
  const int16x8_t pairs = vreinterpretq_s16_s8(weights);
  int8x16_t near[R], far[R];
  const auto take = [&](auto row) __attribute__((always_inline)) {
    constexpr int r = decltype(row)::value;
    if constexpr (r < R) {
      near[r] = vreinterpretq_s8_s16(vdupq_laneq_s16(pairs, (kFirst + r) % 4 * 2));
      far[r] = vreinterpretq_s8_s16(vdupq_laneq_s16(pairs, (kFirst + r) % 4 * 2 + 1));
    }
  };
  take(Constant<0>{}), take(Constant<1>{}), take(Constant<2>{}), take(Constant<3>{});
  const int8_t* second = in + plane;
#pragma clang loop unroll(full)
  for (int v = 0; v < V; v++) {
    const int8x16_t x = vld1q_s8(in + v * 16), y = vld1q_s8(second + v * 16);
#pragma clang loop unroll(full)
    for (int r = 0; r < R; r++) {
      const int16x8_t low = vmlal_s8(vmull_s8(vget_low_s8(x), vget_low_s8(near[r])), vget_low_s8(y),
                                     vget_low_s8(far[r]));
      const int16x8_t high = vmlal_high_s8(vmull_high_s8(x, near[r]), y, far[r]);
      sum[r][2 * v] = vpadalq_s16(sum[r][2 * v], low);
      sum[r][2 * v + 1] = vpadalq_s16(sum[r][2 * v + 1], high);
    }
  }
#endif
}

// Where the next block's weights and offset are. Both are read from front to back.
struct Stream {
  const int32_t* starts;
  const int32_t* offsets;
  const int8_t* weights;
};

// The sums of R rows over all their blocks; lane kLane + r of `bias` is where row r starts.
template <int R, int V, int kLane>
ARM_INLINE void accumulate(int32x4_t (&sum)[R][V * kSums], Stream& s, int32x4_t bias, const int8_t* in,
                           size_t plane) {
#pragma clang loop unroll(full)
  for (int v = 0; v < V * kSums; v++) {
    sum[0][v] = vdupq_laneq_s32(bias, kLane);
    if constexpr (R > 1) sum[1][v] = vdupq_laneq_s32(bias, (kLane + 1) % 4);
    if constexpr (R > 2) sum[2][v] = vdupq_laneq_s32(bias, (kLane + 2) % 4);
    if constexpr (R > 2) sum[3][v] = vdupq_laneq_s32(bias, (kLane + 3) % 4);
  }
  const int32_t *offset = s.offsets, *const end = offset + (s.starts[1] - s.starts[0]);
  const int8_t* w = s.weights;
  s.starts++;
  if (kLane == 0) {
    __builtin_prefetch(w + kAhead);
    __builtin_prefetch((const char*)offset + kAhead);
  }
  if constexpr (R == 1) {
    for (; offset < end - 3; offset += 4, w += 16) {
      const int8x16_t four = vld1q_s8(w);
      add_block<1, V, 0>(sum, in + offset[0], plane, four);
      add_block<1, V, 1>(sum, in + offset[1], plane, four);
      add_block<1, V, 2>(sum, in + offset[2], plane, four);
      add_block<1, V, 3>(sum, in + offset[3], plane, four);
    }
    for (; offset < end; offset++, w += 4)
      add_block<1, V, 0>(sum, in + *offset, plane, vreinterpretq_s8_s32(vld1q_dup_s32((const int32_t*)w)));
  } else if constexpr (R == 2) {
    for (; offset < end - 1; offset += 2, w += 16) {
      const int8x16_t two = vld1q_s8(w);
      add_block<2, V, 0>(sum, in + offset[0], plane, two);
      add_block<2, V, 2>(sum, in + offset[1], plane, two);
    }
    if (offset < end) {
      add_block<2, V, 0>(sum, in + *offset, plane, vreinterpretq_s8_s64(vld1q_dup_s64((const int64_t*)w)));
      offset++, w += 8;
    }
  } else {
    for (; offset < end; offset++, w += 16) add_block<4, V, 0>(sum, in + *offset, plane, vld1q_s8(w));
  }
  s.offsets = offset, s.weights = w;
}

// Rows kLane (`a`) and kLane + 1 (`b`) of N vectors of sums, interleaved: one vector of bytes for two of sums.
template <Rounding kWay, int kLane, int N>
ARM_INLINE void narrow(const Requant& q, const int32x4_t* a, const int32x4_t* b, float32x4_t scale,
                       int8x16_t* bytes) {
  const auto pair = [&](int i) __attribute__((always_inline)) {
    return paired<kWay>(q, rounded<kWay, kLane>(q, a[i], scale), rounded<kWay, kLane + 1>(q, b[i], scale));
  };
#pragma clang loop unroll(full)
  for (int i = 0; i < N; i += 2) {
    const int16x8_t first = pair(i);
    bytes[i / 2] = clamped<kWay>(q, first, i + 1 < N ? pair(i + 1 < N ? i + 1 : i) : first);
  }
}

// V vectors of pixels of rows [row, row_end).
template <int R, int V, Rounding kWay>
__attribute__((noinline)) void tile(const Matrix& m, const int8_t* in, int8_t* out, int row, int row_end) {
  constexpr int N = V * kSums;
  const Requant q(m.output);
  const size_t plane = m.in_plane, out_plane = m.out_plane;
  Stream s;
  s.starts = m.starts + row / R;
  s.offsets = m.offsets + *s.starts;
  s.weights = (const int8_t*)m.weights + (size_t)*s.starts * R * 4;
  out += (size_t)(row / 4) * kPlanes * out_plane;
  for (; row < row_end; row += 4, out += kPlanes * out_plane) {
    const float32x4_t scale = vld1q_f32(m.scale + row);
    const int32x4_t bias = started<kWay>(vld1q_s32(m.bias + row));
    int8x16_t bytes[2][(N + 1) / 2];
    const auto two_rows = [&](auto first) __attribute__((always_inline)) {
      constexpr int kLane = decltype(first)::value;
      if constexpr (R == 1) {
        int32x4_t a[1][N], b[1][N];
        accumulate<1, V, kLane>(a, s, bias, in, plane);
        accumulate<1, V, kLane + 1>(b, s, bias, in, plane);
        narrow<kWay, kLane, N>(q, a[0], b[0], scale, bytes[kLane / 2]);
      } else {
        int32x4_t sum[2][N];
        accumulate<2, V, kLane>(sum, s, bias, in, plane);
        narrow<kWay, kLane, N>(q, sum[0], sum[1], scale, bytes[kLane / 2]);
      }
    };
    if constexpr (R == 4) {
      int32x4_t sum[4][N];
      accumulate<4, V, 0>(sum, s, bias, in, plane);
      narrow<kWay, 0, N>(q, sum[0], sum[1], scale, bytes[0]);
      narrow<kWay, 2, N>(q, sum[2], sum[3], scale, bytes[1]);
    } else {
      two_rows(Constant<0>{});
      two_rows(Constant<2>{});
    }
#ifdef __ARM_FEATURE_DOTPROD
#pragma clang loop unroll(full)
    for (int v = 0; v < V; v++) {
      const int16x8_t a = vreinterpretq_s16_s8(bytes[0][v / 2]), b = vreinterpretq_s16_s8(bytes[1][v / 2]);
      vst1q_s8(out + v * 16, vreinterpretq_s8_s16(v % 2 ? vzip2q_s16(a, b) : vzip1q_s16(a, b)));
    }
#else
#pragma clang loop unroll(full)
    for (int v = 0; v < V; v++) {
      vst1q_s8(out + v * 16, bytes[0][v]);
      vst1q_s8(out + out_plane + v * 16, bytes[1][v]);
    }
#endif
  }
}

typedef void (*Tile)(const Matrix&, const int8_t*, int8_t*, int, int);

// By the number of vectors, the first entry for one. R * V sums and their operands fit into 32 registers.
template <Rounding kWay>
struct Tiles {
#ifdef __ARM_FEATURE_DOTPROD
  static constexpr Tile kRows1[] = {tile<1, 1, kWay>, tile<1, 2, kWay>, tile<1, 3, kWay>, tile<1, 4, kWay>,
                                    tile<1, 5, kWay>, tile<1, 6, kWay>, tile<1, 7, kWay>, tile<1, 8, kWay>};
  static constexpr Tile kRows2[] = {tile<2, 1, kWay>, tile<2, 2, kWay>, tile<2, 3, kWay>, tile<2, 4, kWay>,
                                    tile<2, 5, kWay>, tile<2, 6, kWay>, tile<2, 7, kWay>, tile<2, 8, kWay>};
  static constexpr Tile kRows4[] = {tile<4, 1, kWay>, tile<4, 2, kWay>, tile<4, 3, kWay>, tile<4, 4, kWay>,
                                    tile<4, 5, kWay>};
  static constexpr int kMost[] = {8, 8, 5};
#else
  static constexpr Tile kRows1[] = {tile<1, 1, kWay>, tile<1, 2, kWay>, tile<1, 3, kWay>, tile<1, 4, kWay>};
  static constexpr Tile kRows2[] = {tile<2, 1, kWay>, tile<2, 2, kWay>, tile<2, 3, kWay>, tile<2, 4, kWay>};
  static constexpr Tile kRows4[] = {tile<4, 1, kWay>, tile<4, 2, kWay>};
  static constexpr int kMost[] = {4, 4, 2};
#endif
};

// As few tiles as possible, all of nearly the same size: 49 vectors are 7 x 7.
template <Rounding kWay>
void multiply_tiles(const Matrix& m, const int8_t* in, int8_t* out, int row, int row_end, int vector,
                    int vector_end) {
  typedef Tiles<kWay> T;
  const int log = m.block / 2;
  const Tile* tiles = log == 0 ? T::kRows1 : log == 1 ? T::kRows2 : T::kRows4;
  const int all = vector_end - vector, count = (all + T::kMost[log] - 1) / T::kMost[log];
  for (int i = 0; i < count; i++) {
    const int n = all / count + (i < all % count);
    tiles[n - 1](m, in + (size_t)vector * 16, out + (size_t)vector * 16, row, row_end);
    vector += n;
  }
}

void multiply_sparse(const Matrix& m, const uint8_t* in, uint8_t* out, int row, int row_end, int vector,
                     int vector_end) {
  choose(rounding_of(m.bound, m.result_bound, m.output), multiply_tiles<kPlain>, multiply_tiles<kEven>,
         multiply_tiles<kOdd>, multiply_tiles<kWide>)(m, (const int8_t*)in, (int8_t*)out, row, row_end, vector,
                                                      vector_end);
}

}  // namespace
}  // namespace edgesparse
