// Kernels in plain C++, for any little-endian CPU: slow, and the reference that the others are tested against.
// flags: -O3
#include "plain_kernels.h"

namespace edgesparse {

extern const Kernels portable_kernels;
const Kernels portable_kernels = Generic<int8_t, 1, 0>::kernels<4>("portable");

}  // namespace edgesparse
