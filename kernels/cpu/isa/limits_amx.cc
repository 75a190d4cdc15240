#include <immintrin.h>

#include "kernels/cpu/isa/limits.h"
#include "kernels/cpu/isa/tiles.h"

namespace ocelli::kernels::cpu {
namespace {

constexpr int kTileRows = 16;
constexpr int kRowBytes = 64;

// Sets this thread's eight tiles up, all of full size: 0 to 3 are sums of zero, 4 to 7 hold
// `operand`, of kTileRows · kRowBytes bytes.
void load_tiles(const uint8_t* operand) {
  configure_tiles();
  // The compiler does not know that the loads below read memory.
  asm volatile("" : : "r"(operand) : "memory");
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, operand, kRowBytes);
  _tile_loadd(5, operand, kRowBytes);
  _tile_loadd(6, operand, kRowBytes);
  _tile_loadd(7, operand, kRowBytes);
}

}  // namespace

int64_t amx_int8_loop(int64_t rounds) {
  alignas(64) uint8_t operand[kTileRows * kRowBytes];
  for (int i = 0; i < kTileRows * kRowBytes; ++i) operand[i] = static_cast<uint8_t>(i * 157 >> 3);
  load_tiles(operand);
  for (int64_t i = 0; i < rounds; ++i) {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  }
  _tile_release();
  return rounds * 4 * kTileRows * kTileRows * kRowBytes * 2;
}

int64_t amx_bf16_loop(int64_t rounds) {
  constexpr int kPairs = kTileRows * kRowBytes / 2;
  alignas(64) uint16_t operand[kPairs];
  for (int i = 0; i < kPairs; ++i) operand[i] = static_cast<uint16_t>(0x3f80 | (i * 157 & 0x807f));
  load_tiles(reinterpret_cast<const uint8_t*>(operand));
  for (int64_t i = 0; i < rounds; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
  return rounds * 4 * kTileRows * kTileRows * (kRowBytes / 2) * 2;
}

}  // namespace ocelli::kernels::cpu
