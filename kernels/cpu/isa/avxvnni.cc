#include <cpuid.h>

#define OCELLI_VNNI_PREFIX "%{vex%} "
#include "kernels/cpu/isa/avxvnni.h"
#include "kernels/cpu/isa/limits.h"
#include "kernels/cpu/isa/tables.h"

namespace ocelli::kernels::cpu {

void linear_int8_avxvnni(const Int8Block& block) {
  Int8Vnni::linear(block);
}
void linear_int4_avxvnni(const Int8Block& block) {
  Int4Vnni::linear(block);
}
int64_t avxvnni_int8_loop(int64_t rounds) {
  return vnni_loop(rounds);
}

bool has_avxvnni() {
  constexpr unsigned kAvxVnni = 1U << 4;
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & kAvxVnni) != 0;
}

}  // namespace ocelli::kernels::cpu
