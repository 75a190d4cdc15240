// AVX-VNNI's kernels in AVX-512's encoding, for processors that have that alone: they have faster
// ones, but tests find these there too.
#define OCELLI_VNNI_PREFIX "%{evex%} "
#include "kernels/cpu/isa/avxvnni.h"
#include "kernels/cpu/isa/limits.h"
#include "kernels/cpu/isa/tables.h"

namespace ocelli::kernels::cpu {

void linear_int8_avxvnni_evex(const Int8Block& block) {
  Int8Vnni::linear(block);
}
void linear_int4_avxvnni_evex(const Int8Block& block) {
  Int4Vnni::linear(block);
}
int64_t avxvnni_evex_int8_loop(int64_t rounds) {
  return vnni_loop(rounds);
}

}  // namespace ocelli::kernels::cpu
