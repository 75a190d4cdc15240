#include "kernels/cpu/isa/tiles_emulated.h"

#include "host/error.h"

namespace ocelli::kernels::cpu::amx_emulated {
namespace {

constexpr int kTiles = 8;
constexpr int kRows = 16;

// A row in anyone's memory, of whatever type and alignment.
struct [[gnu::may_alias]] Row {
  std::byte bytes[64];
};

struct Tiles {
  Tile at[kTiles];
  bool configured;
};
thread_local constinit Tiles tiles = {};

Tile& configured_tile(int tile) {
  OCELLI_CHECK(tiles.configured, "tile {}", tile);
  OCELLI_CHECK(tile >= 0 && tile < kTiles, "tile {}", tile);
  return tiles.at[tile];
}

}  // namespace

void configure() {
  OCELLI_CHECK(!tiles.configured, "tiles were not released");
  tiles = {};
  tiles.configured = true;
}

void release() {
  OCELLI_CHECK(tiles.configured, "tiles are released twice");
  tiles.configured = false;
}

void zero(int tile) {
  configured_tile(tile) = {};
}

void load(int tile, const void* from, int64_t stride) {
  auto* to = reinterpret_cast<Row*>(configured_tile(tile).rows);
  const auto* next = static_cast<const std::byte*>(from);
  for (int r = 0; r < kRows; ++r) to[r] = *reinterpret_cast<const Row*>(next + r * stride);
}

void store(int tile, void* to, int64_t stride) {
  const auto* from = reinterpret_cast<const Row*>(configured_tile(tile).rows);
  auto* next = static_cast<std::byte*>(to);
  for (int r = 0; r < kRows; ++r) *reinterpret_cast<Row*>(next + r * stride) = from[r];
}

void multiply_int8(int sums, int rows, int weights) {
  add_int8_products(configured_tile(rows), configured_tile(weights), configured_tile(sums));
}

void multiply_bf16(int sums, int rows, int weights) {
  add_bf16_products(configured_tile(rows), configured_tile(weights), configured_tile(sums));
}

}  // namespace ocelli::kernels::cpu::amx_emulated
