// AMX's tiles as every kernel here uses them: all eight of 16 rows of 64 bytes.
//
// Included by files compiled with AMX; internal linkage, as kernels.h explains.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace ocelli::kernels::cpu {
namespace {

// What LDTILECFG reads (Intel SDM): palette 1, and for each tile its bytes a row and its rows.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);

// Sets up the tiles of the calling thread; _tile_release() gives them back.
void configure_tiles() {
  static constexpr TileConfig kConfig;
  _tile_loadconfig(&kConfig);
}

// Tile T in instructions; the compiler's own functions want its number as a literal.
template <int T>
[[gnu::always_inline]] inline void zero_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(T));
}
template <int T>
[[gnu::always_inline]] inline void load_tile(const void* from, int64_t stride) {
  asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(T), "r"(from), "r"(stride));
}
// Past L1, which keeps what it has: for what will not be wanted again soon.
template <int T>
[[gnu::always_inline]] inline void stream_tile(const void* from, int64_t stride) {
  asm volatile("tileloaddt1 (%1,%2,1), %%tmm%c0" : : "i"(T), "r"(from), "r"(stride));
}
template <int T>
[[gnu::always_inline]] inline void store_tile(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(T), "r"(to), "r"(stride) : "memory");
}

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
