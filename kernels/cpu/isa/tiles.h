// AMX's tiles as every kernel here uses them: all eight of 16 rows of 64 bytes.
//
// Included by files compiled with AMX; internal linkage, as kernels.h explains.
#pragma once

#include <immintrin.h>

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

}  // namespace
}  // namespace ocelli::kernels::cpu
