// x86-64 with AVX2: eight pixels of two channels as int16 in a register.
//
// Without a dot product of bytes vpmaddwd is the best multiplication: it sums pairs of products of int16. So
// tensors are kept as int16, in planes of two channels, and weights too; nothing is widened between nodes.
// A tile is `R` rows of a block x `NV` vectors of pixels.
// flags: -O3 -mavx2 -mfma
#include <immintrin.h>

#include "borders_x86.h"
#include "depthwise_rows_x86.h"
#include "plain_kernels.h"

namespace edgesparse {
namespace {

#define INLINE inline __attribute__((always_inline))

typedef __m256i Vector;

INLINE Vector load(const void* p) { return _mm256_loadu_si256((const __m256i*)p); }
INLINE void store(void* p, Vector v) { _mm256_storeu_si256((__m256i*)p, v); }

// See kernels.h; packs saturates, so results far beyond int8 are clamped right.
struct Requantizer {
  Vector zero, low, high;
  explicit Requantizer(const Output& o)
      : zero(_mm256_set1_epi16((short)o.zero_point)),
        low(_mm256_set1_epi16((short)o.lowest)),
        high(_mm256_set1_epi16((short)o.highest)) {}

  static INLINE Vector scaled(Vector accumulator, __m256 scale) {
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(accumulator), scale));
  }
  // Eight results of 32 bits each, whose lanes are a's four and b's four.
  INLINE Vector packed(Vector a, Vector b) const {
    const Vector q = _mm256_adds_epi16(_mm256_packs_epi32(a, b), zero);
    return _mm256_max_epi16(_mm256_min_epi16(q, high), low);
  }
  // Two rows of eight pixels to pixels of two channels.
  INLINE Vector interleaved(Vector row0, Vector row1) const {
    return packed(_mm256_unpacklo_epi32(row0, row1), _mm256_unpackhi_epi32(row0, row1));
  }
};

enum { kPrefetch = 1024 };

INLINE Vector pair_of(const int16_t* weights) {
  int32_t two;
  memcpy(&two, weights, 4);
  return _mm256_set1_epi32(two);
}

template <int R, int NV>
INLINE void rows(const Matrix& m, int row, int n, const uint8_t* in, const int32_t*& offsets,
                 const int16_t*& weights, Vector (&q)[R][NV]) {
  Vector acc[R][NV];
#pragma GCC unroll 4
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int v = 0; v < NV; v++) acc[r][v] = _mm256_set1_epi32(m.bias[row + r]);
  const size_t plane = m.in_plane;
  for (; n > 0; n--, offsets++, weights += R * 4) {
    const uint8_t *a = in + *offsets, *b = a + plane;
    _mm_prefetch((const char*)weights + kPrefetch, _MM_HINT_T0);
    _mm_prefetch((const char*)offsets + kPrefetch / (2 * R), _MM_HINT_T0);
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
      const Vector w0 = pair_of(weights + r * 4), w1 = pair_of(weights + r * 4 + 2);
#pragma GCC unroll 8
      for (int v = 0; v < NV; v++)
        acc[r][v] = _mm256_add_epi32(acc[r][v], _mm256_add_epi32(_mm256_madd_epi16(w0, load(a + v * 32)),
                                                                 _mm256_madd_epi16(w1, load(b + v * 32))));
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int v = 0; v < NV; v++) q[r][v] = Requantizer::scaled(acc[r][v], _mm256_set1_ps(m.scale[row + r]));
}

template <int R, int NV>
__attribute__((noinline)) void tile(const Matrix& m, const uint8_t* in, uint8_t* out, int row, int row_end) {
  const Requantizer rq(m.output);
  const int32_t* starts = m.starts + row / R;
  const int32_t* offsets = m.offsets + *starts;
  const int16_t* weights = (const int16_t*)m.weights + (size_t)*starts * R * 4;
  out += (size_t)(row / 2) * m.out_plane;
  const auto next = [&](Vector(&q)[R][NV]) {
    const int n = starts[1] - starts[0];
    starts++;
    rows<R, NV>(m, row, n, in, offsets, weights, q);
    row += R;
  };
  const auto put = [&](const Vector(&a)[NV], const Vector(&b)[NV]) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; v++) store(out + v * 32, rq.interleaved(a[v], b[v]));
    out += m.out_plane;
  };
  while (row < row_end) {
    Vector q[R][NV];
    next(q);
    if constexpr (R == 1) {
      Vector second[R][NV];
      next(second);
      put(q[0], second[0]);
    } else {
#pragma GCC unroll 2
      for (int r = 0; r < R; r += 2) put(q[r], q[r + 1]);
    }
  }
}

typedef void (*Tile)(const Matrix&, const uint8_t*, uint8_t*, int, int);
const Tile kTiles1[] = {tile<1, 1>, tile<1, 2>, tile<1, 3>, tile<1, 4>,
                        tile<1, 5>, tile<1, 6>, tile<1, 7>, tile<1, 8>};
const Tile kTiles2[] = {tile<2, 1>, tile<2, 2>, tile<2, 3>, tile<2, 4>};
const Tile kTiles4[] = {tile<4, 1>, tile<4, 2>};

void multiply(const Matrix& m, const uint8_t* in, uint8_t* out, int row, int row_end, int vector,
              int vector_end) {
  const Tile* tiles = m.block == 1 ? kTiles1 : m.block == 2 ? kTiles2 : kTiles4;
  const int most = 8 / m.block, all = vector_end - vector, count = (all + most - 1) / most;
  for (int i = 0; i < count; i++) {
    const int n = all / count + (i < all % count);
    tiles[n - 1](m, in + (size_t)vector * 32, out + (size_t)vector * 32, row, row_end);
    vector += n;
  }
}

// ---- depthwise: two taps of a padded group at a time ----
//
// Two vectors, one for each tap, are interleaved by int16: a dword then holds both taps of one channel of one
// pixel, which is what vpmaddwd sums. Weights: [group][plane][pair of taps][2 channels][2 taps].

size_t packed_depthwise_bytes(const Depthwise& d) { return (size_t)d.groups * 2 * ((d.taps + 1) / 2) * 8; }

void pack_depthwise(const Depthwise& d, void* packed) {
  int16_t* out = (int16_t*)packed;
  for (int g = 0; g < d.groups; g++)
    for (int plane = 0; plane < 2; plane++)
      for (int t = 0; t < d.taps; t += 2)
        for (int c = 0; c < 2; c++)
          for (int i = 0; i < 2; i++)
            *out++ = t + i < d.taps ? d.weights[((size_t)g * d.taps + t + i) * 4 + plane * 2 + c] : 0;
}

void depthwise(const Depthwise& d, int group, const uint8_t* padded, uint8_t* out) {
  const Requantizer rq(d.output);
  const int pairs = (d.taps + 1) / 2;
  for (int plane = 0; plane < 2; plane++) {
    const int64_t* weights = (const int64_t*)d.packed + ((size_t)group * 2 + plane) * pairs;
    const int channel = group * 4 + plane * 2;
    int64_t two_scales, two_biases;
    memcpy(&two_scales, d.scale + channel, 8), memcpy(&two_biases, d.bias + channel, 8);
    const __m256 scale = _mm256_castsi256_ps(_mm256_set1_epi64x(two_scales));
    const Vector bias = _mm256_set1_epi64x(two_biases);
    const uint8_t* in = padded + plane * d.in_plane;
    uint8_t* o = out + plane * d.out_plane;
    for (int p = 0; p < d.pixels; p += 16, in += 64, o += 64) {
      Vector acc[4] = {bias, bias, bias, bias};
      for (int i = 0; i < pairs; i++) {
        const uint8_t *a = in + d.shifts[2 * i], *b = in + d.shifts[2 * i + (2 * i + 1 < d.taps)];
        const Vector w = _mm256_set1_epi64x(weights[i]), a0 = load(a), b0 = load(b), a1 = load(a + 32),
                     b1 = load(b + 32);
        acc[0] = _mm256_add_epi32(acc[0], _mm256_madd_epi16(_mm256_unpacklo_epi16(a0, b0), w));
        acc[1] = _mm256_add_epi32(acc[1], _mm256_madd_epi16(_mm256_unpackhi_epi16(a0, b0), w));
        acc[2] = _mm256_add_epi32(acc[2], _mm256_madd_epi16(_mm256_unpacklo_epi16(a1, b1), w));
        acc[3] = _mm256_add_epi32(acc[3], _mm256_madd_epi16(_mm256_unpackhi_epi16(a1, b1), w));
      }
      for (int i = 0; i < 4; i++) acc[i] = Requantizer::scaled(acc[i], scale);
      store(o, rq.packed(acc[0], acc[1]));
      if (p + 8 < d.pixels) store(o + 32, rq.packed(acc[2], acc[3]));
    }
  }
}

// The same pairs of taps for depthwise_rows_x86.h; narrow: both planes' weights in one register.
struct RowArithmetic {
  enum { kPlanes = 2 };
  Requantizer rq;
  Vector weights[5], bias;
  __m256 scale;

  RowArithmetic(const Depthwise& d, int group, int plane, bool narrow) : rq(d.output) {
    const int64_t* packed = (const int64_t*)d.packed + ((size_t)group * 2 + plane) * 5;
    const int64_t* other = narrow ? packed + 5 : packed;
    for (int i = 0; i < 5; i++) weights[i] = _mm256_setr_epi64x(packed[i], packed[i], other[i], other[i]);
    const auto both = [&](const void* values) {
      int64_t two[2];
      memcpy(&two[0], (const char*)values + (group * 4 + plane * 2) * 4, 8);
      two[1] = two[0];
      if (narrow) memcpy(&two[1], (const char*)values + (group * 4 + 2) * 4, 8);
      return _mm256_setr_epi64x(two[0], two[0], two[1], two[1]);
    };
    bias = both(d.bias), scale = _mm256_castsi256_ps(both(d.scale));
  }

  INLINE Vector operator()(const Vector (&taps)[9]) const {
    Vector low = bias, high = bias;
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
      const Vector a = taps[2 * i], b = i < 4 ? taps[2 * i + 1] : a;
      low = _mm256_add_epi32(low, _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), weights[i]));
      high = _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), weights[i]));
    }
    return rq.packed(Requantizer::scaled(low, scale), Requantizer::scaled(high, scale));
  }
};

constexpr Kernels make() {
  Kernels k = Generic<int16_t, 2, 0, QuadPixels>::kernels<8>("avx2");
  k.cost[0] = 1.4f, k.cost[1] = 2.2f, k.cost[2] = 4.0f;
  k.multiply = multiply;
  k.depthwise = depthwise;
  k.packed_depthwise_bytes = packed_depthwise_bytes;
  k.pack_depthwise = pack_depthwise;
  k.can_depthwise_direct = DepthwiseRows<RowArithmetic>::can;
  k.depthwise_direct = DepthwiseRows<RowArithmetic>::run;
  k.from_nhwc = quads_from_nhwc<true>;
  k.to_nhwc = quads_to_nhwc<true>;
  return k;
}

}  // namespace

extern const Kernels avx2_kernels;
const Kernels avx2_kernels = make();

}  // namespace edgesparse
