// aarch64 with the dot-product extension (Cortex-A76): four pixels of four channels, sdot.
// flags: -O3 -march=armv8.2-a+dotprod
#include "generic.h"

namespace edgesparse {

extern const Kernels dotprod_kernels;
const Kernels dotprod_kernels = Generic<int8_t, 1, 0>::kernels<4>("dotprod");

}  // namespace edgesparse
