// x86-64 with AVX2: eight pixels of two channels as int16 in a register, vpmaddwd.
// flags: -O3 -mavx2 -mfma
#include "generic.h"

namespace edgesparse {

extern const Kernels avx2_kernels;
const Kernels avx2_kernels = Generic<int16_t, 2, 0>::kernels<8>("avx2");

}  // namespace edgesparse
