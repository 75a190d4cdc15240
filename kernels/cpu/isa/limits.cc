#include "kernels/cpu/isa/limits.h"

#include "kernels/cpu/isa/tables.h"

namespace ocelli::kernels::cpu {

LimitLoops limit_loops(const std::string& isa) {
#if defined(__x86_64__)
  if (isa == "avx2") return {avx2_f32_loop, avx2_int8_loop, avx2_f32_loop};
  if (isa == "avxvnni") {
    const PeakLoop int8 = has_avxvnni() ? avxvnni_int8_loop : avxvnni_evex_int8_loop;
    return {avx2_f32_loop, int8, avx2_f32_loop};
  }
  // Vectors that multiply bf16 are twice as fast as those of fp32 on Zen 4, half as fast on
  // Sapphire Rapids.
  const PeakLoop bf16 = __builtin_cpu_supports("avx512bf16") ? avx512_bf16_loop : avx512_f32_loop;
  if (isa == "avx512" || isa == "amx-emulated") {
    return {avx512_f32_loop, avx512_int8_loop, bf16};
  }
  if (isa == "amx") return {avx512_f32_loop, amx_int8_loop, amx_has_bf16() ? amx_bf16_loop : bf16};
#endif
  static_cast<void>(isa);
  return {portable_f32_loop, nullptr, nullptr};
}

}  // namespace ocelli::kernels::cpu
