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

// Tiles 0 to 3 for sums of M by N tiles, tile 2m + n for rows 16m and columns 16n: zeros where
// these are the `first`, else from `sums`, of `stride` bytes a row of 4-byte values.
template <int M, int N>
[[gnu::always_inline]] inline void begin_sums(const std::byte* sums, int stride, bool first) {
  if (first) {
    _tile_zero(0);
    if (N > 1) _tile_zero(1);
    if (M > 1) _tile_zero(2);
    if (M > 1 && N > 1) _tile_zero(3);
  } else {
    _tile_loadd(0, sums, stride);
    if (N > 1) _tile_loadd(1, sums + 64, stride);
    if (M > 1) _tile_loadd(2, sums + 16 * stride, stride);
    if (M > 1 && N > 1) _tile_loadd(3, sums + 16 * stride + 64, stride);
  }
}

// And back.
template <int M, int N>
[[gnu::always_inline]] inline void end_sums(std::byte* sums, int stride) {
  _tile_stored(0, sums, stride);
  if (N > 1) _tile_stored(1, sums + 64, stride);
  if (M > 1) _tile_stored(2, sums + 16 * stride, stride);
  if (M > 1 && N > 1) _tile_stored(3, sums + 16 * stride + 64, stride);
  // The compiler does not know that these stores write to sums.
  asm volatile("" ::: "memory");
}

}  // namespace
}  // namespace ocelli::kernels::cpu
