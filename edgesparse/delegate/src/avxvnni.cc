// x86-64 with AVX-VNNI and no AVX-512: eight pixels of four channels in a register.
// flags: -O3 -mavx2 -mfma -mavxvnni
#include <immintrin.h>

#include "borders_x86.h"
#include "depthwise_rows_x86.h"
#include "plain_kernels.h"

#define INLINE inline __attribute__((always_inline))
#define WIDE(operation) _mm256_##operation
#define WIDE_REGISTERS 16

namespace edgesparse {
namespace {

typedef __m256i Vector;
typedef __m256 Floats;
enum { kBytes = 32, kPixels = 8 };

INLINE Vector load(const void* p) { return _mm256_loadu_si256((const __m256i*)p); }
INLINE void store(void* p, Vector v) { _mm256_storeu_si256((__m256i*)p, v); }
INLINE Vector zeros() { return _mm256_setzero_si256(); }
INLINE Vector lanes(__m128i v) { return _mm256_broadcastsi128_si256(v); }
INLINE Floats float_lanes(__m128 v) { return _mm256_insertf128_ps(_mm256_castps128_ps256(v), v, 1); }
INLINE Vector dpbusd(Vector sum, Vector a, Vector w) {
#ifdef __AVXVNNI__
  return _mm256_dpbusd_avx_epi32(sum, a, w);
#else  // the same instruction in AVX-512's encoding, to test these kernels on CPUs that have only that
  return _mm256_dpbusd_epi32(sum, a, w);
#endif
}

}  // namespace
}  // namespace edgesparse

#include "vnni.h"

namespace edgesparse {
namespace {

// Quads of taps, as in vnni.h, for depthwise_rows_x86.h.
struct RowArithmetic {
  enum { kPlanes = 1 };
  Requantizer rq;
  Vector weights[3], bias;
  Floats scale;

  RowArithmetic(const Depthwise& d, int group, int, bool)
      : rq(d.output),
        bias(lanes(_mm_loadu_si128((const __m128i*)(d.bias + group * 4)))),
        scale(float_lanes(_mm_loadu_ps(d.scale + group * 4))) {
    const __m128i* packed = (const __m128i*)d.packed + (size_t)group * 3;
    for (int i = 0; i < 3; i++) weights[i] = lanes(_mm_loadu_si128(packed + i));
  }

  INLINE Vector operator()(const Vector (&taps)[9]) const {
    Vector acc[4] = {bias, bias, bias, bias};
#pragma GCC unroll 3
    for (int i = 0; i < 3; i++) {
      const Vector a = taps[4 * i], b = taps[i < 2 ? 4 * i + 1 : 8], c = taps[i < 2 ? 4 * i + 2 : 8],
                   e = taps[i < 2 ? 4 * i + 3 : 8];
      add_taps(acc, a, b, c, e, weights[i]);
    }
    for (int j = 0; j < 4; j++) acc[j] = Requantizer::scaled(acc[j], scale);
    return rq.bytes(rq.pair(acc[0], acc[1]), rq.pair(acc[2], acc[3]));
  }
};

constexpr Kernels make() {
  Kernels k = Generic<uint8_t, 1, 128, QuadPixels>::kernels<8>("avxvnni");
  k.cost[0] = 1.4f, k.cost[1] = 2.2f, k.cost[2] = 4.0f;
  k.multiply = multiply;
  k.depthwise = depthwise;
  k.packed_depthwise_bytes = packed_taps_bytes;
  k.pack_depthwise = pack_taps;
  k.can_depthwise_direct = DepthwiseRows<RowArithmetic>::can;
  k.depthwise_direct = DepthwiseRows<RowArithmetic>::run;
  k.from_nhwc = quads_from_nhwc<false>;
  k.to_nhwc = quads_to_nhwc<false>;
  return k;
}

}  // namespace

extern const Kernels avxvnni_kernels;
const Kernels avxvnni_kernels = make();

}  // namespace edgesparse
