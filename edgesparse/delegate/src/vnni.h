// Kernels for vpdpbusd, the same for 64 and 32 bytes: avx512vnni.cc and avxvnni.cc define the vector operations
// and include this.
//
// vpdpbusd multiplies unsigned by signed bytes: stored elements are value + 128. A tile is `R` rows of a block
// x `NV` vectors of pixels, R * NV accumulators in registers: each vector that is loaded is used R times, each
// weight NV times.
#pragma once

namespace edgesparse {
namespace {

// ---- requantization: see kernels.h ----

// Four vectors of results, in the order that packing wants: bytes of a lane are v0, v1, v2, v3 with four
// each. packs saturates, so results far beyond int8 are clamped right.
struct Requantizer {
  Vector zero, low, high;
  explicit Requantizer(const Output& o)
      : zero(WIDE(set1_epi16)((short)(o.zero_point + 128))),
        low(WIDE(set1_epi8)((char)(o.lowest + 128))),
        high(WIDE(set1_epi8)((char)(o.highest + 128))) {}

  static INLINE Vector scaled(Vector accumulator, Floats scale) {
    return WIDE(cvtps_epi32)(WIDE(mul_ps)(WIDE(cvtepi32_ps)(accumulator), scale));
  }
  INLINE Vector pair(Vector a, Vector b) const { return WIDE(adds_epi16)(WIDE(packs_epi32)(a, b), zero); }
  INLINE Vector bytes(Vector pair0, Vector pair1) const {
    return WIDE(max_epu8)(WIDE(min_epu8)(WIDE(packus_epi16)(pair0, pair1), high), low);
  }
};

// From four rows, each four pixels of a lane, to pixels of four channels.
INLINE Vector interleaved(Vector rows) {
  return WIDE(shuffle_epi8)(rows, lanes(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)));
}

// ---- sparse matrix ----

// Weights are read once for each tile, front to back: fetched that far ahead, a layer that is not in the
// cache costs little more than one that is.
enum { kPrefetch = 1024 };

template <int R, int NV>
INLINE void block(Vector (&acc)[R][NV], const uint8_t* in, const int8_t* weights) {
  Vector a[NV];
#pragma GCC unroll 8
  for (int v = 0; v < NV; v++) a[v] = load(in + v * kBytes);
#pragma GCC unroll 4
  for (int r = 0; r < R; r++) {
    int32_t four;
    memcpy(&four, weights + r * 4, 4);
    const Vector w = WIDE(set1_epi32)(four);
#pragma GCC unroll 8
    for (int v = 0; v < NV; v++) acc[r][v] = dpbusd(acc[r][v], a[v], w);
  }
}

// Scaled sums of R rows. With few accumulators blocks alternate between U sets of them, or each would wait
// for the one before (vpdpbusd has a latency of four to five cycles).
template <int R, int NV>
INLINE void rows(const Matrix& m, int row, int n, const uint8_t* in, const int32_t*& offsets,
                 const int8_t*& weights, Vector (&q)[R][NV]) {
  constexpr int U = R * NV >= 6 ? 1 : R * NV >= 3 ? 2 : R * NV == 2 ? 3 : 4;
  Vector acc[U][R][NV];
#pragma GCC unroll 4
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int v = 0; v < NV; v++) {
      acc[0][r][v] = WIDE(set1_epi32)(m.bias[row + r]);
#pragma GCC unroll 4
      for (int u = 1; u < U; u++) acc[u][r][v] = zeros();
    }
  for (; n >= U; n -= U, offsets += U, weights += U * R * 4) {
    _mm_prefetch((const char*)weights + kPrefetch, _MM_HINT_T0);
    _mm_prefetch((const char*)offsets + kPrefetch / R, _MM_HINT_T0);
#pragma GCC unroll 4
    for (int u = 0; u < U; u++) block<R, NV>(acc[u], in + offsets[u], weights + u * R * 4);
  }
  for (; n > 0; n--, offsets++, weights += R * 4) block<R, NV>(acc[0], in + *offsets, weights);
#pragma GCC unroll 4
  for (int r = 0; r < R; r++) {
    const Floats scale = WIDE(set1_ps)(m.scale[row + r]);
#pragma GCC unroll 8
    for (int v = 0; v < NV; v++) {
#pragma GCC unroll 4
      for (int u = 1; u < U; u++) acc[0][r][v] = WIDE(add_epi32)(acc[0][r][v], acc[u][r][v]);
      q[r][v] = Requantizer::scaled(acc[0][r][v], scale);
    }
  }
}

template <int R, int NV>
__attribute__((noinline)) void tile(const Matrix& m, const uint8_t* in, uint8_t* out, int row, int row_end) {
  const Requantizer rq(m.output);
  const int32_t* starts = m.starts + row / R;
  const int32_t* offsets = m.offsets + *starts;
  const int8_t* weights = (const int8_t*)m.weights + (size_t)*starts * R * 4;
  out += (size_t)(row / 4) * m.out_plane;
  for (; row < row_end; row += 4, out += m.out_plane) {
    Vector pairs[2][NV];
    Vector q[R][NV];
    const auto next = [&](int i) {
      const int n = starts[1] - starts[0];
      starts++;
      rows<R, NV>(m, row + i, n, in, offsets, weights, q);
    };
    if constexpr (R == 4) {
      next(0);
#pragma GCC unroll 8
      for (int v = 0; v < NV; v++)
        pairs[0][v] = rq.pair(q[0][v], q[1][v]), pairs[1][v] = rq.pair(q[2][v], q[3][v]);
    } else if constexpr (R == 2) {
#pragma GCC unroll 2
      for (int h = 0; h < 2; h++) {
        next(2 * h);
#pragma GCC unroll 8
        for (int v = 0; v < NV; v++) pairs[h][v] = rq.pair(q[0][v], q[1][v]);
      }
    } else {
#pragma GCC unroll 2
      for (int h = 0; h < 2; h++) {
        Vector first[NV];
        next(2 * h);
#pragma GCC unroll 8
        for (int v = 0; v < NV; v++) first[v] = q[0][v];
        next(2 * h + 1);
#pragma GCC unroll 8
        for (int v = 0; v < NV; v++) pairs[h][v] = rq.pair(first[v], q[0][v]);
      }
    }
#pragma GCC unroll 8
    for (int v = 0; v < NV; v++) store(out + v * kBytes, interleaved(rq.bytes(pairs[0][v], pairs[1][v])));
  }
}

typedef void (*Tile)(const Matrix&, const uint8_t*, uint8_t*, int, int);
const Tile kTiles1[] = {tile<1, 1>, tile<1, 2>, tile<1, 3>, tile<1, 4>,
                        tile<1, 5>, tile<1, 6>, tile<1, 7>, tile<1, 8>};
const Tile kTiles2[] = {tile<2, 1>, tile<2, 2>, tile<2, 3>,
                        tile<2, 4>,
#if WIDE_REGISTERS == 32
                        tile<2, 5>, tile<2, 6>, tile<2, 7>,
                        tile<2, 8>
#endif
};
const Tile kTiles4[] = {tile<4, 1>, tile<4, 2>,
#if WIDE_REGISTERS == 32
                        tile<4, 3>, tile<4, 4>, tile<4, 5>
#endif
};

void multiply(const Matrix& m, const uint8_t* in, uint8_t* out, int row, int row_end, int vector,
              int vector_end) {
  const Tile* tiles = m.block == 1 ? kTiles1 : m.block == 2 ? kTiles2 : kTiles4;
  const int most = (int)(m.block == 1   ? sizeof kTiles1
                         : m.block == 2 ? sizeof kTiles2
                                        : sizeof kTiles4) /
                   (int)sizeof(Tile);
  const int all = vector_end - vector;
  // As few tiles as possible, all of nearly the same size: 49 vectors are 7 x 7.
  const int count = (all + most - 1) / most;
  for (int i = 0; i < count; i++) {
    const int n = all / count + (i < all % count);
    tiles[n - 1](m, in + (size_t)vector * kBytes, out + (size_t)vector * kBytes, row, row_end);
    vector += n;
  }
}

// ---- depthwise, any window: four taps of a padded group at a time ----
//
// Four vectors, one for each tap, are interleaved bytewise: a dword then holds the four taps of one channel
// of one pixel, which is what vpdpbusd sums. Register j has pixels j, 4 + j, ... of its lanes of four.

size_t packed_taps_bytes(const Depthwise& d) {
  return ((size_t)d.groups * ((d.taps + 3) / 4) * 16 + 63) / 64 * 64;
}

void pack_taps(const Depthwise& d, void* packed) {
  int8_t* out = (int8_t*)packed;
  for (int g = 0; g < d.groups; g++)
    for (int t = 0; t < d.taps; t += 4, out += 16)
      for (int c = 0; c < 4; c++)
        for (int i = 0; i < 4; i++)
          out[c * 4 + i] = t + i < d.taps ? d.weights[((size_t)g * d.taps + t + i) * 4 + c] : 0;
}

INLINE void add_taps(Vector (&acc)[4], Vector a, Vector b, Vector c, Vector e, Vector w) {
  const Vector ab0 = WIDE(unpacklo_epi8)(a, b), ab1 = WIDE(unpackhi_epi8)(a, b);
  const Vector ce0 = WIDE(unpacklo_epi8)(c, e), ce1 = WIDE(unpackhi_epi8)(c, e);
  acc[0] = dpbusd(acc[0], WIDE(unpacklo_epi16)(ab0, ce0), w);
  acc[1] = dpbusd(acc[1], WIDE(unpackhi_epi16)(ab0, ce0), w);
  acc[2] = dpbusd(acc[2], WIDE(unpacklo_epi16)(ab1, ce1), w);
  acc[3] = dpbusd(acc[3], WIDE(unpackhi_epi16)(ab1, ce1), w);
}

void depthwise(const Depthwise& d, int group, const uint8_t* padded, uint8_t* out) {
  const Requantizer rq(d.output);
  const int quads = (d.taps + 3) / 4;
  const int8_t* packed = (const int8_t*)d.packed + (size_t)group * quads * 16;
  const Floats scale = float_lanes(_mm_loadu_ps(d.scale + group * 4));
  const Vector bias = lanes(_mm_loadu_si128((const __m128i*)(d.bias + group * 4)));
  for (int p = 0; p < d.pixels; p += kPixels, padded += kBytes, out += kBytes) {
    Vector acc[4] = {bias, bias, bias, bias};
    for (int quad = 0; quad < quads; quad++) {
      const int32_t* shifts = d.shifts + quad * 4;
      const int n = d.taps - quad * 4;
      const Vector a = load(padded + shifts[0]);
      const Vector b = n > 1 ? load(padded + shifts[1]) : a;
      const Vector c = n > 2 ? load(padded + shifts[2]) : a;
      const Vector e = n > 3 ? load(padded + shifts[3]) : a;
      add_taps(acc, a, b, c, e, lanes(_mm_loadu_si128((const __m128i*)(packed + quad * 16))));
    }
    for (int j = 0; j < 4; j++) acc[j] = Requantizer::scaled(acc[j], scale);
    store(out, rq.bytes(rq.pair(acc[0], acc[1]), rq.pair(acc[2], acc[3])));
  }
}

}  // namespace
}  // namespace edgesparse
