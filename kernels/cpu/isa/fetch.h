// Asking memory, into L2, for what is read soon. Included like kernels.h, and under the same rule
// of linkage.
//
// Left alone, memory rests while what has come is computed with: the processor sees where keys lead
// only once they are read. What it fetches of its own accord runs ahead of what is asked for, but
// ends with each page of 4 KB, and begins in the next one after a few lines that are waited for:
// 250 ns each. So lines are asked for a few at a time, as only 16 can be on their way, and the
// first ones of each page before their turn.
#pragma once

#include <cstdint>

namespace ocelli::kernels::cpu {
namespace {

inline constexpr int kFetchedLine = 64;

// Nothing needs to be where `from` points.
template <int kLines>
inline void fetch(const char* from) {
  constexpr int kToL2 = 2;
#pragma GCC unroll 16
  for (int i = 0; i < kLines; ++i) __builtin_prefetch(from + i * kFetchedLine, 0, kToL2);
}

// For one that reads on from `at`: kLines of the next page, of its first four.
template <int kLines>
inline void open_next_page(const char* at, int first = 0) {
  constexpr uintptr_t kPage = 4096;
  const auto in_page = static_cast<int64_t>(reinterpret_cast<uintptr_t>(at) % kPage);
  fetch<kLines>(at + (int64_t{kPage} - in_page) + first % 4 * kFetchedLine);
}

}  // namespace
}  // namespace ocelli::kernels::cpu
