#include "kernels/cpu/isa/limits.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace ocelli::kernels::cpu {
namespace {

#if defined(__x86_64__)
// Intel SDM, CPUID leaf 7.
bool has_avx512_bf16() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & 1U << 5) != 0;
}

bool has_amx_bf16() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & 1U << 22) != 0;
}
#endif

}  // namespace

LimitLoops limit_loops(const std::string& isa) {
#if defined(__x86_64__)
  const PeakLoop vector_bf16 = has_avx512_bf16() ? avx512_bf16_loop : nullptr;
  if (isa == "avx2") return {avx2_f32_loop, avx2_int8_loop, nullptr};
  if (isa == "avx512") return {avx512_f32_loop, avx512_int8_loop, vector_bf16};
  if (isa == "amx") {
    return {avx512_f32_loop, amx_int8_loop, has_amx_bf16() ? amx_bf16_loop : vector_bf16};
  }
#endif
  static_cast<void>(isa);
  return {portable_f32_loop, nullptr, nullptr};
}

}  // namespace ocelli::kernels::cpu
