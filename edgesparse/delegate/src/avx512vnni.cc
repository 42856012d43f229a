// x86-64 with AVX-512 VNNI: sixteen pixels of four channels in a register.
// flags: -O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mfma -mprefer-vector-width=512
#include <immintrin.h>

#include "plain_kernels.h"

#define INLINE inline __attribute__((always_inline))
#define WIDE(operation) _mm512_##operation
#define WIDE_REGISTERS 32

namespace edgesparse {
namespace {

typedef __m512i Vector;
typedef __m512 Floats;
enum { kBytes = 64, kPixels = 16 };

INLINE Vector load(const void* p) { return _mm512_loadu_si512(p); }
INLINE void store(void* p, Vector v) { _mm512_storeu_si512(p, v); }
INLINE Vector zeros() { return _mm512_setzero_si512(); }
INLINE Vector lanes(__m128i v) { return _mm512_broadcast_i32x4(v); }
INLINE Floats float_lanes(__m128 v) { return _mm512_broadcast_f32x4(v); }
INLINE Vector dpbusd(Vector sum, Vector a, Vector w) { return _mm512_dpbusd_epi32(sum, a, w); }

}  // namespace
}  // namespace edgesparse

#include "avx512vnni_depthwise.h"

namespace edgesparse {
namespace {

size_t packed_depthwise_bytes(const Depthwise& d) {
  return packed_taps_bytes(d) + (direct_geometry(d) ? direct_bytes(d) : 0);
}

void pack_depthwise(const Depthwise& d, void* packed) {
  pack_taps(d, packed);
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

void from_nhwc(const int8_t* in, int pixels, int channels, uint8_t* out, size_t plane, int group,
               int group_end) {
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
      for (int i = 0; i < 4; i++)
        v[i] = _mm512_xor_si512(flip, _mm512_loadu_si512(a + (i < n ? i : 0) * plane));
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
