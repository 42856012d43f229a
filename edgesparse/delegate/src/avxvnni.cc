// x86-64 with AVX-VNNI (no AVX-512): eight pixels of four channels in a register, vpdpbusd.
// flags: -O3 -mavx2 -mfma -mavxvnni
#include "generic.h"

namespace edgesparse {

extern const Kernels avxvnni_kernels;
const Kernels avxvnni_kernels = Generic<uint8_t, 1, 128>::kernels<8>("avxvnni");

}  // namespace edgesparse
