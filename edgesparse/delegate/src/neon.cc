// aarch64 without dot product (Cortex-A72, A53): eight pixels of two channels, smull, smlal, sadalp.
// flags: -O3 -march=armv8-a
#include "generic.h"

namespace edgesparse {

extern const Kernels neon_kernels;
const Kernels neon_kernels = Generic<int8_t, 2, 0>::kernels<8>("neon");

}  // namespace edgesparse
