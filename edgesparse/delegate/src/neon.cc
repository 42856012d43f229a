// aarch64 without dot product (Cortex-A72, A53): eight pixels of two channels, smull, smlal, sadalp.
// flags: -O3 -march=armv8-a
#include "arm_depthwise_neon.h"
#include "arm_multiply.h"

namespace edgesparse {
namespace {

typedef Generic<int8_t, 2, 0, Pixels> Plain;

void multiply(const Matrix& m, const uint8_t* in, uint8_t* out, int row, int row_end, int vector, int vector_end) {
  if (m.lowest_weight) return Plain::multiply<8>(m, in, out, row, row_end, vector, vector_end);
  multiply_sparse(m, in, out, row, row_end, vector, vector_end);
}

constexpr Kernels make() {
  Kernels k = Plain::kernels<8>("neon");
  k.cost[0] = 1.1f, k.cost[1] = 2.0f, k.cost[2] = 4.1f;
  k.multiply = multiply;
  k.can_depthwise_direct = can_depthwise_direct;
  k.depthwise_direct = depthwise_direct;
  k.from_nhwc = from_nhwc<2>;
  k.to_nhwc = to_nhwc<2>;
  k.add = add;
  k.max_pool = max_pool<2>;
  return k;
}

}  // namespace

extern const Kernels neon_kernels;
const Kernels neon_kernels = make();

}  // namespace edgesparse
