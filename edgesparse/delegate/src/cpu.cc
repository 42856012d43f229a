// flags: -O2
#include "cpu.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace edgesparse {
namespace {

struct Candidate {
  const Kernels* kernels;
  bool available;
};

#if defined(__x86_64__)
// Asks cpuid itself: __builtin_cpu_supports does not link into a shared library everywhere. XCR0 says whether
// the operating system saves the wide registers.
uint64_t enabled_registers() {
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0;
  asm volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
  return (uint64_t)d << 32 | a;
}

int candidates(Candidate* list) {
  uint32_t a = 0, b = 0, c = 0, d = 0, a1 = 0, ignored;
  const uint64_t registers = enabled_registers();
  uint32_t features = 0;
  __get_cpuid(1, &a, &b, &features, &d);
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) b = c = 0;
  if (!__get_cpuid_count(7, 1, &a1, &ignored, &ignored, &ignored)) a1 = 0;
  const bool ymm = (registers & 6) == 6, zmm = (registers & 0xe6) == 0xe6;
  const bool avx2 = ymm && (b >> 5 & 1) && (features >> 12 & 1);                                // and FMA
  const bool avx512 = zmm && (b >> 16 & 1) && (b >> 17 & 1) && (b >> 30 & 1) && (b >> 31 & 1);  // F, DQ, BW, VL
  list[0] = {&avx512vnni_kernels, avx2 && avx512 && (c >> 11 & 1)};
  list[1] = {&avxvnni_kernels, avx2 && (a1 >> 4 & 1)};
  list[2] = {&avx2_kernels, avx2};
  return 3;
}
#elif defined(__aarch64__)
int candidates(Candidate* list) {
  const unsigned long dot = 1ul << 20;  // HWCAP_ASIMDDP
  list[0] = {&dotprod_kernels, (getauxval(AT_HWCAP) & dot) != 0};
  list[1] = {&neon_kernels, true};
  return 2;
}
#else
int candidates(Candidate*) { return 0; }
#endif

}  // namespace

bool cpu_has_amx() {
#if defined(__x86_64__)
  uint32_t a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 25 & 1) && (enabled_registers() >> 18 & 1);
#else
  return false;
#endif
}

const Kernels* choose_kernels(const char* isa, const char** why) {
  const uint16_t one = 1;
  if (!*(const uint8_t*)&one) {
    *why = "big-endian CPU";
    return nullptr;
  }
  Candidate list[4];
  int n = candidates(list);
  if (!n) {
    *why = "no kernels for this architecture";
    return nullptr;
  }
  if (!strcmp(isa, "auto")) {
    for (int i = 0; i < n; i++)
      if (list[i].available) return list[i].kernels;
    *why = "no kernels for this CPU: it has neither AVX2 nor NEON";
    return nullptr;
  }
  list[n++] = {&portable_kernels, true};
  for (int i = 0; i < n; i++)
    if (!strcmp(list[i].kernels->name, isa)) {
      if (list[i].available) return list[i].kernels;
      *why = "this CPU lacks the instruction set of the option isa";
      return nullptr;
    }
  *why = "unknown instruction set in the option isa";
  return nullptr;
}

}  // namespace edgesparse
