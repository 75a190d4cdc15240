// How products of many rows in tiles are shared out among threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/tasks.h"

namespace ocelli::kernels::cpu {

// Fewer rows go faster one by one than in tiles.
inline constexpr int kFewestTiledRows = 8;

// Whether an output is better written past the caches. Of those it was tried on, 16 to 32 MB
// gained by it and 10 to 13 MB lost more by being read from memory.
inline bool goes_past_caches(int rows, int outputs, DType dtype) {
  constexpr int64_t kMostCachedBytes = 14'000'000;
  return int64_t{rows} * outputs * bytes_per_element(dtype) > kMostCachedBytes;
}

// For rows of so many bytes and so many panels that are computed together.
inline TaskShape tiled_task(int rows, int row_bytes, int panels, int threads) {
  // Rows of which so many bytes stay in L2 while weights pass, of so many inputs at a time; and at
  // most so many panels, for the sake of the sums that wait there meanwhile.
  constexpr int kTaskRowBytes = 1'320'000;
  constexpr int kInputBytes = 2560;
  constexpr int kMostPanels = 32;
  // Of at least so many rows each thread has its own, which it will find in its L2 in the next
  // product: as they are multiplied, and in part what they were made from.
  constexpr int kOwnRows = 256;
  const int bytes = ceil_div(row_bytes, ceil_div(row_bytes, kInputBytes));
  const int blocks =
      std::max(ceil_div(rows, kTaskRowBytes / bytes), std::min(threads, rows / kOwnRows));
  const int even = ceil_div(panels * blocks, threads * kTasksPerThread);
  // Panels in pairs, as the kernel takes them.
  return {round_up(ceil_div(rows, blocks), QuantisedRows::kTileRows),
          round_up(std::min(kMostPanels, even), 2)};
}

}  // namespace ocelli::kernels::cpu
