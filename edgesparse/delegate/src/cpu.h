// Which kernels this CPU can run.
#pragma once

#include "kernels.h"

namespace edgesparse {

// The kernels of an instruction set, or the best ones for "auto".
// Returns: null and why, where the name is unknown or the CPU lacks it.
const Kernels* choose_kernels(const char* isa, const char** why);

}  // namespace edgesparse
