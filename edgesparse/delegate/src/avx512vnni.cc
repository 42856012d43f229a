// x86-64 with AVX-512 VNNI: sixteen pixels of four channels in a register.
//
// vpdpbusd multiplies unsigned by signed bytes: stored elements are value + 128. A tile is `R` rows of a block
// x `NV` vectors of sixteen pixels, R * NV accumulators in registers: each vector that is loaded is used R
// times, each weight NV times.
// flags: -O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mfma -mprefer-vector-width=512
#include <immintrin.h>

#include "generic.h"

namespace edgesparse {
namespace {

#define INLINE inline __attribute__((always_inline))

typedef __m512i Vector;

// ---- requantization: see kernels.h ----

// Four vectors of 16 results, in the order that packing wants: bytes of a lane are v0, v1, v2, v3 with four
// each. packs saturates, so results far beyond int8 are clamped right.
struct Requantizer {
  Vector zero, low, high;
  explicit Requantizer(const Output& o)
      : zero(_mm512_set1_epi16((short)(o.zero_point + 128))),
        low(_mm512_set1_epi8((char)(o.lowest + 128))),
        high(_mm512_set1_epi8((char)(o.highest + 128))) {}

  static INLINE Vector scaled(Vector accumulator, __m512 scale) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(accumulator), scale));
  }
  INLINE Vector pair(Vector a, Vector b) const { return _mm512_adds_epi16(_mm512_packs_epi32(a, b), zero); }
  INLINE Vector bytes(Vector pair0, Vector pair1) const {
    return _mm512_max_epu8(_mm512_min_epu8(_mm512_packus_epi16(pair0, pair1), high), low);
  }
};

// From four rows, each four pixels of a lane, to pixels of four channels.
INLINE Vector interleaved(Vector rows) {
  return _mm512_shuffle_epi8(rows, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7,
                                                                        11, 15)));
}

// ---- sparse matrix ----

// Weights are read once for each tile, front to back: fetched that far ahead, a layer that is not in the
// cache costs little more than one that is.
enum { kPrefetch = 1024 };

template <int R, int NV>
INLINE void block(Vector (&acc)[R][NV], const uint8_t* in, const int8_t* weights) {
  Vector a[NV];
#pragma GCC unroll 8
  for (int v = 0; v < NV; v++) a[v] = _mm512_loadu_si512(in + v * 64);
#pragma GCC unroll 4
  for (int r = 0; r < R; r++) {
    int32_t four;
    memcpy(&four, weights + r * 4, 4);
    const Vector w = _mm512_set1_epi32(four);
#pragma GCC unroll 8
    for (int v = 0; v < NV; v++) acc[r][v] = _mm512_dpbusd_epi32(acc[r][v], a[v], w);
  }
}

// Scaled sums of R rows. With few accumulators blocks alternate between U sets of them, or each would wait
// for the one before (vpdpbusd has a latency of four to five cycles).
template <int R, int NV>
INLINE void rows(const Matrix& m, int row, int n, const uint8_t* in, const int32_t*& offsets, const int8_t*& weights,
                 Vector (&q)[R][NV]) {
  constexpr int U = R * NV >= 6 ? 1 : R * NV >= 3 ? 2 : R * NV == 2 ? 3 : 4;
  Vector acc[U][R][NV];
#pragma GCC unroll 4
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int v = 0; v < NV; v++) {
      acc[0][r][v] = _mm512_set1_epi32(m.bias[row + r]);
#pragma GCC unroll 4
      for (int u = 1; u < U; u++) acc[u][r][v] = _mm512_setzero_si512();
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
    const __m512 scale = _mm512_set1_ps(m.scale[row + r]);
#pragma GCC unroll 8
    for (int v = 0; v < NV; v++) {
#pragma GCC unroll 4
      for (int u = 1; u < U; u++) acc[0][r][v] = _mm512_add_epi32(acc[0][r][v], acc[u][r][v]);
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
      for (int v = 0; v < NV; v++) pairs[0][v] = rq.pair(q[0][v], q[1][v]), pairs[1][v] = rq.pair(q[2][v], q[3][v]);
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
    for (int v = 0; v < NV; v++)
      _mm512_storeu_si512(out + v * 64, interleaved(rq.bytes(pairs[0][v], pairs[1][v])));
  }
}

typedef void (*Tile)(const Matrix&, const uint8_t*, uint8_t*, int, int);
const Tile kTiles1[] = {tile<1, 1>, tile<1, 2>, tile<1, 3>, tile<1, 4>, tile<1, 5>, tile<1, 6>, tile<1, 7>, tile<1, 8>};
const Tile kTiles2[] = {tile<2, 1>, tile<2, 2>, tile<2, 3>, tile<2, 4>, tile<2, 5>, tile<2, 6>, tile<2, 7>, tile<2, 8>};
const Tile kTiles4[] = {tile<4, 1>, tile<4, 2>, tile<4, 3>, tile<4, 4>, tile<4, 5>};

void multiply(const Matrix& m, const uint8_t* in, uint8_t* out, int row, int row_end, int vector, int vector_end) {
  const Tile* tiles = m.block == 1 ? kTiles1 : m.block == 2 ? kTiles2 : kTiles4;
  const int most = m.block == 4 ? 5 : 8, all = vector_end - vector;
  // As few tiles as possible, all of nearly the same size: 49 vectors are 7 x 7.
  const int count = (all + most - 1) / most;
  for (int i = 0; i < count; i++) {
    const int n = all / count + (i < all % count);
    tiles[n - 1](m, in + (size_t)vector * 64, out + (size_t)vector * 64, row, row_end);
    vector += n;
  }
}

// ---- depthwise, any window: four taps of a padded group at a time ----
//
// Four vectors, one for each tap, are interleaved bytewise: a dword then holds the four taps of one channel
// of one pixel, which is what vpdpbusd sums. Register j has pixels j, 4 + j, 8 + j, 12 + j.

size_t packed_taps_bytes(const Depthwise& d) { return (size_t)d.groups * ((d.taps + 3) / 4) * 16; }

void pack_taps(const Depthwise& d, int8_t* out) {
  for (int g = 0; g < d.groups; g++)
    for (int t = 0; t < d.taps; t += 4, out += 16)
      for (int c = 0; c < 4; c++)
        for (int i = 0; i < 4; i++) out[c * 4 + i] = t + i < d.taps ? d.weights[((size_t)g * d.taps + t + i) * 4 + c] : 0;
}

void depthwise(const Depthwise& d, int group, const uint8_t* padded, uint8_t* out) {
  const Requantizer rq(d.output);
  const int quads = (d.taps + 3) / 4;
  const int8_t* packed = (const int8_t*)d.packed + (size_t)group * quads * 16;
  const __m512 scale = _mm512_broadcast_f32x4(_mm_loadu_ps(d.scale + group * 4));
  const Vector bias = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)(d.bias + group * 4)));
  for (int p = 0; p < d.pixels; p += 16, padded += 64, out += 64) {
    Vector acc[4] = {bias, bias, bias, bias};
    for (int quad = 0; quad < quads; quad++) {
      const int32_t* shifts = d.shifts + quad * 4;
      const int n = d.taps - quad * 4;
      const Vector a = _mm512_loadu_si512(padded + shifts[0]);
      const Vector b = n > 1 ? _mm512_loadu_si512(padded + shifts[1]) : a;
      const Vector c = n > 2 ? _mm512_loadu_si512(padded + shifts[2]) : a;
      const Vector e = n > 3 ? _mm512_loadu_si512(padded + shifts[3]) : a;
      const Vector ab0 = _mm512_unpacklo_epi8(a, b), ab1 = _mm512_unpackhi_epi8(a, b);
      const Vector ce0 = _mm512_unpacklo_epi8(c, e), ce1 = _mm512_unpackhi_epi8(c, e);
      const Vector w = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)(packed + quad * 16)));
      acc[0] = _mm512_dpbusd_epi32(acc[0], _mm512_unpacklo_epi16(ab0, ce0), w);
      acc[1] = _mm512_dpbusd_epi32(acc[1], _mm512_unpackhi_epi16(ab0, ce0), w);
      acc[2] = _mm512_dpbusd_epi32(acc[2], _mm512_unpacklo_epi16(ab1, ce1), w);
      acc[3] = _mm512_dpbusd_epi32(acc[3], _mm512_unpackhi_epi16(ab1, ce1), w);
    }
    for (int j = 0; j < 4; j++) acc[j] = Requantizer::scaled(acc[j], scale);
    _mm512_storeu_si512(out, rq.bytes(rq.pair(acc[0], acc[1]), rq.pair(acc[2], acc[3])));
  }
}

}  // namespace
}  // namespace edgesparse

#include "avx512vnni_depthwise.h"

namespace edgesparse {
namespace {

size_t packed_depthwise_bytes(const Depthwise& d) {
  return packed_taps_bytes(d) + (direct_geometry(d) ? (size_t)d.groups * kDirectWeights : 0);
}

void pack_depthwise(const Depthwise& d, void* packed) {
  pack_taps(d, (int8_t*)packed);
  if (direct_geometry(d)) pack_direct(d, (int8_t*)packed + packed_taps_bytes(d));
}

// ---- copies and borders ----

template <int kUnit>
struct WidePixels {
  static INLINE __mmask16 first(int n) { return (__mmask16)(n >= 16 ? 0xffff : (1 << n) - 1); }

  static void copy(uint8_t* out, const uint8_t* in, int pixels, int stride) {
    if (stride == 1) {
      for (int i = 0; i < pixels; i += 16) {
        const __mmask16 mask = first(pixels - i);
        _mm512_mask_storeu_epi32(out + i * 4, mask, _mm512_maskz_loadu_epi32(mask, in + i * 4));
      }
    } else if (stride == 2) {
      const Vector even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
      for (int i = 0; i < pixels; i += 16) {
        const int n = 2 * (pixels - i) - 1;  // the last pixel's neighbour may be nobody's memory
        const Vector a = _mm512_maskz_loadu_epi32(first(n), in + i * 8);
        const Vector b = _mm512_maskz_loadu_epi32(n > 16 ? first(n - 16) : (__mmask16)0, in + i * 8 + 64);
        _mm512_mask_storeu_epi32(out + i * 4, first(pixels - i), _mm512_permutex2var_epi32(a, even, b));
      }
    } else {
      PlainPixels<kUnit>::copy(out, in, pixels, stride);
    }
  }
  static void fill(uint8_t* out, int pixels, uint32_t value) {
    const Vector v = _mm512_set1_epi32((int)value);
    for (int i = 0; i < pixels; i += 16) _mm512_mask_storeu_epi32(out + i * 4, first(pixels - i), v);
  }
};

// Four registers of 4 x (4 pixels apart) x 16 channels <-> four groups of 16 pixels: 4x4 dwords in each lane.
INLINE void transpose(Vector (&v)[4]) {
  const Vector a = _mm512_unpacklo_epi32(v[0], v[1]), b = _mm512_unpackhi_epi32(v[0], v[1]);
  const Vector c = _mm512_unpacklo_epi32(v[2], v[3]), d = _mm512_unpackhi_epi32(v[2], v[3]);
  v[0] = _mm512_unpacklo_epi64(a, c), v[1] = _mm512_unpackhi_epi64(a, c);
  v[2] = _mm512_unpacklo_epi64(b, d), v[3] = _mm512_unpackhi_epi64(b, d);
}

INLINE Vector four_lanes(__m128i a, __m128i b, __m128i c, __m128i d) {
  const Vector ab = _mm512_inserti32x4(_mm512_castsi128_si512(a), b, 1);
  return _mm512_inserti32x4(_mm512_inserti32x4(ab, c, 2), d, 3);
}

// Three channels: twelve bytes are four pixels.
void from_rgb(const int8_t* in, int pixels, uint8_t* out) {
  const Vector spread =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1));
  for (int p = 0; p < pixels; p += 16) {
    const auto load = [&](int i) {
      const int n = 3 * (pixels - p - i);
      const __mmask16 mask = (__mmask16)(n >= 12 ? 0xfff : n > 0 ? (1 << n) - 1 : 0);
      return _mm_maskz_loadu_epi8(mask, in + (size_t)(p + i) * 3);
    };
    const Vector v = _mm512_shuffle_epi8(four_lanes(load(0), load(4), load(8), load(12)), spread);
    _mm512_storeu_si512(out + (size_t)p * 4, _mm512_xor_si512(v, _mm512_set1_epi8((char)0x80)));
  }
}

void from_nhwc(const int8_t* in, int pixels, int channels, uint8_t* out, size_t plane, int group, int group_end) {
  if (channels == 3) return from_rgb(in, pixels, out);
  const Vector flip = _mm512_set1_epi8((char)0x80);
  for (int p = 0; p < pixels; p += 16)
    for (int g = group; g < group_end; g += 4) {
      const int left = channels - g * 4, n = group_end - g;
      const __mmask16 mask = (__mmask16)(left >= 16 ? 0xffff : (1 << left) - 1);
      const auto load = [&](int i) {
        const int pixel = p + i < pixels ? p + i : pixels - 1;
        return _mm_maskz_loadu_epi8(mask, in + (size_t)pixel * channels + g * 4);
      };
      Vector v[4];
      for (int i = 0; i < 4; i++) v[i] = four_lanes(load(i), load(i + 4), load(i + 8), load(i + 12));
      transpose(v);
      uint8_t* o = out + (size_t)g * plane + (size_t)p * 4;
      for (int i = 0; i < 4 && i < n; i++) _mm512_storeu_si512(o + i * plane, _mm512_xor_si512(v[i], flip));
    }
}

void to_nhwc(const uint8_t* in, size_t plane, int pixels, int channels, int8_t* out, int group, int group_end) {
  const Vector flip = _mm512_set1_epi8((char)0x80);
  for (int p = 0; p < pixels; p += 16)
    for (int g = group; g < group_end; g += 4) {
      const int n = group_end - g;
      int left = channels - g * 4;
      left = left < n * 4 ? left : n * 4;
      const __mmask16 mask = (__mmask16)(left >= 16 ? 0xffff : (1 << left) - 1);
      const uint8_t* a = in + (size_t)g * plane + (size_t)p * 4;
      Vector v[4];
      for (int i = 0; i < 4; i++) v[i] = _mm512_xor_si512(flip, _mm512_loadu_si512(a + (i < n ? i : 0) * plane));
      transpose(v);
      const auto store = [&](int i, __m128i bytes) {
        if (p + i < pixels) _mm_mask_storeu_epi8(out + (size_t)(p + i) * channels + g * 4, mask, bytes);
      };
      for (int i = 0; i < 4; i++) {
        store(i, _mm512_castsi512_si128(v[i])), store(i + 4, _mm512_extracti32x4_epi32(v[i], 1));
        store(i + 8, _mm512_extracti32x4_epi32(v[i], 2)), store(i + 12, _mm512_extracti32x4_epi32(v[i], 3));
      }
    }
}

// Planes are whole vectors of 16 bytes at least.
void add(const Addition& s, const uint8_t* a, const uint8_t* b, uint8_t* out, size_t bytes) {
  const Vector ma = _mm512_set1_epi32(s.multiplier_a), mb = _mm512_set1_epi32(s.multiplier_b);
  const Vector bias = _mm512_set1_epi32(s.bias - 128 * (s.multiplier_a + s.multiplier_b));
  const Vector low = _mm512_set1_epi32(s.output.lowest - s.output.zero_point);
  const Vector high = _mm512_set1_epi32(s.output.highest - s.output.zero_point);
  const Vector zero = _mm512_set1_epi32(s.output.zero_point + 128);
  const __m128i shift = _mm_cvtsi32_si128(s.shift);
  for (size_t i = 0; i < bytes; i += 16) {
    const Vector x = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)(a + i)));
    const Vector y = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)(b + i)));
    Vector q = _mm512_add_epi32(bias, _mm512_add_epi32(_mm512_mullo_epi32(x, ma), _mm512_mullo_epi32(y, mb)));
    q = _mm512_max_epi32(_mm512_min_epi32(_mm512_sra_epi32(q, shift), high), low);
    _mm_storeu_si128((__m128i*)(out + i), _mm512_cvtepi32_epi8(_mm512_add_epi32(q, zero)));
  }
}

constexpr Kernels make() {
  Kernels k = Generic<uint8_t, 1, 128, WidePixels>::kernels<16>("avx512vnni");
  k.cost[0] = 1.25f, k.cost[1] = 2.1f, k.cost[2] = 4.0f;
  k.multiply = multiply;
  k.depthwise = depthwise;
  k.packed_depthwise_bytes = packed_depthwise_bytes;
  k.pack_depthwise = pack_depthwise;
  k.can_depthwise_direct = can_depthwise_direct;
  k.depthwise_direct = depthwise_direct;
  k.from_nhwc = from_nhwc;
  k.to_nhwc = to_nhwc;
  k.add = add;
  return k;
}

}  // namespace

extern const Kernels avx512vnni_kernels;
const Kernels avx512vnni_kernels = make();

}  // namespace edgesparse
