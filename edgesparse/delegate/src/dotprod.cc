// aarch64 with the dot-product extension (Cortex-A76): four pixels of four channels in a register, sdot.
// flags: -O3 -march=armv8.2-a+dotprod
#include "arm_depthwise_dotprod.h"
#include "arm_multiply.h"

namespace edgesparse {
namespace {

constexpr Kernels make() {
  Kernels k = Generic<int8_t, 1, 0, Pixels>::kernels<4>("dotprod");
  k.cost[0] = 1.15f, k.cost[1] = 2.0f, k.cost[2] = 3.8f;
  k.multiply = multiply_sparse;
  k.packed_depthwise_bytes = packed_depthwise_bytes;
  k.pack_depthwise = pack_depthwise;
  k.can_depthwise_direct = can_depthwise_direct;
  k.depthwise_direct = depthwise_direct;
  k.from_nhwc = from_nhwc<1>;
  k.to_nhwc = to_nhwc<1>;
  k.add = add;
  k.max_pool = max_pool<1>;
  return k;
}

}  // namespace

extern const Kernels dotprod_kernels;
const Kernels dotprod_kernels = make();

}  // namespace edgesparse
