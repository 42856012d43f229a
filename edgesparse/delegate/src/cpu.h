// Which kernels this CPU can run.
#pragma once

#include "kernels.h"

namespace edgesparse {

// The kernels of an instruction set, or the best ones for "auto".
// Returns: null and why, where the name is unknown or the CPU lacks it.
const Kernels* choose_kernels(const char* isa, const char** why);

// Whether the CPU has matrix tiles of int8, with which the runtime's dense products are several times as fast.
bool cpu_has_amx();

}  // namespace edgesparse
