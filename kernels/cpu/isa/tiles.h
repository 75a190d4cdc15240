// Tiles as every kernel here uses them: eight of 16 rows of 64 bytes, AMX's or in software.
//
// For either there are, of tiles by number and strides in bytes:
//   configure_tiles(), release_tiles()    set the calling thread's tiles up, and give them back
//   zero_tile<T>(), load_tile<T>(from, stride), store_tile<T>(to, stride)
//   stream_tile<T>(from, stride)          loads past L1, which keeps what it has: for what will not
//                                         be wanted again soon
//   add_int8_products<C, A, B>()          C, of int32, += A, rows of int8, times B, of uint8
//   add_bf16_products<C, A, B>()          C, of fp32, += A times B, of bf16
// Internal linkage, as kernels.h explains.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef OCELLI_EMULATED_TILES
#include "kernels/cpu/isa/tiles_emulated.h"
#else
#include "kernels/cpu/isa/tiles_amx.h"
#endif

namespace ocelli::kernels::cpu {
namespace {

// Sums of products of 32 rows and 32 columns in memory, 4 bytes each, and how they are taken into
// tiles 0 to 3: tile 2m + n has rows 16m and columns 16n of them.
struct TileSums {
  std::byte* data = nullptr;
  int64_t stride = 0;  // bytes of a row

  template <int T>
  [[gnu::always_inline]] std::byte* part() const {
    return data + T / 2 * 16 * stride + T % 2 * 64;
  }
  template <int T>
  [[gnu::always_inline]] void store() const {
    store_tile<T>(part<T>(), stride);
  }
};

// Begins tile T of sums: with zeros where they are the `first`, else with what is there. What the
// tile holds of the sums `before`, if any, goes there first.
template <int T>
[[gnu::always_inline]] inline void begin_sum(const TileSums& before, const TileSums& sums,
                                             bool first) {
  if (before.data) before.store<T>();
  if (first) {
    zero_tile<T>();
  } else {
    load_tile<T>(sums.part<T>(), sums.stride);
  }
}

// Brings sums of M by N tiles to memory.
template <int M, int N>
[[gnu::always_inline]] inline void end_sums(const TileSums& sums) {
  sums.store<0>();
  if (N > 1) sums.store<1>();
  if (M > 1) sums.store<2>();
  if (M > 1 && N > 1) sums.store<3>();
}

}  // namespace
}  // namespace ocelli::kernels::cpu
