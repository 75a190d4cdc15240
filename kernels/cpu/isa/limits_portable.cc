#include "kernels/cpu/isa/limits.h"

namespace ocelli::kernels::cpu {

int64_t portable_f32_loop(int64_t rounds) {
  typedef float V __attribute__((vector_size(16)));
  constexpr int kChains = 12;
  const V a = {0.7F, -0.3F, 0.9F, 0.1F};
  const V b = {-1.1F, 2.9F, 1.3F, 0.7F};
  V sums[kChains] = {};
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (V& sum : sums) sum = sum * a + b;
  }
  // A purpose for the sums.
  asm volatile("" : : "r"(sums) : "memory");
  return rounds * kChains * 4 * 2;
}

uint64_t sum_bytes(const std::byte* data, int64_t bytes) {
  typedef uint64_t V __attribute__((vector_size(16)));
  constexpr int kLanes = 4;              // a cache line
  constexpr int64_t kAhead = 4096 / 16;  // the core's own prefetchers stop at a page's end
  V sums[kLanes] = {};
  const V* values = reinterpret_cast<const V*>(data);
  for (int64_t i = 0; i < bytes / 16; i += kLanes) {
    __builtin_prefetch(values + i + kAhead);
#pragma GCC unroll 4
    for (int k = 0; k < kLanes; ++k) sums[k] += values[i + k];
  }
  const V sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  return sum[0] + sum[1];
}

}  // namespace ocelli::kernels::cpu
