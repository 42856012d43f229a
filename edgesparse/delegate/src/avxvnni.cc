// x86-64 with AVX-VNNI and no AVX-512: eight pixels of four channels in a register.
// flags: -O3 -mavx2 -mfma -mavxvnni
#include <immintrin.h>

#include "borders_x86.h"
#include "generic.h"

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

constexpr Kernels make() {
  Kernels k = Generic<uint8_t, 1, 128, QuadPixels>::kernels<8>("avxvnni");
  k.cost[0] = 1.4f, k.cost[1] = 2.2f, k.cost[2] = 4.0f;
  k.multiply = multiply;
  k.depthwise = depthwise;
  k.packed_depthwise_bytes = packed_taps_bytes;
  k.pack_depthwise = pack_taps;
  k.from_nhwc = quads_from_nhwc<false>;
  k.to_nhwc = quads_to_nhwc<false>;
  return k;
}

}  // namespace

extern const Kernels avxvnni_kernels;
const Kernels avxvnni_kernels = make();

}  // namespace edgesparse
