// Tiles in software, as tiles.h names them: for tests of what is multiplied in tiles on machines
// without AMX, and under sanitizers, which see what these load and store.
//
// Included by files compiled for AVX-512: functions of external linkage are declared only.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ocelli::kernels::cpu {
namespace amx_emulated {

struct alignas(64) Tile {
  std::byte rows[16][64];
};

// Of the calling thread's eight tiles, by number. What is not configured, or already, aborts.
void configure();
void release();
void zero(int tile);
void load(int tile, const void* from, int64_t stride);
void store(int tile, void* to, int64_t stride);
void multiply_int8(int sums, int rows, int weights);
void multiply_bf16(int sums, int rows, int weights);

// As TDPBSUD: int32 sums[m][n] += Σ over j of int8 rows[m][j] · uint8 weights[j / 4][4n + j % 4],
// wrapping around.
void add_int8_products(const Tile& rows, const Tile& weights, Tile& sums);
// As TDPBF16PS: fp32 sums[m][n] += (Σ even j + Σ odd j) of bf16 rows[m][j] · weights[j / 2][2n +
// j % 2], each sum from 0 on by fused multiply-adds in the order of j. Whatever MXCSR says, all is
// rounded to nearest, even, and denormals are zeros in what is read and what comes out.
void add_bf16_products(const Tile& rows, const Tile& weights, Tile& sums);

}  // namespace amx_emulated

// Where what is multiplied in these tiles is declared (tables.h).
namespace tile_kernels = amx_emulated;

namespace {

inline void configure_tiles() {
  amx_emulated::configure();
}
inline void release_tiles() {
  amx_emulated::release();
}
template <int T>
void zero_tile() {
  amx_emulated::zero(T);
}
template <int T>
void load_tile(const void* from, int64_t stride) {
  amx_emulated::load(T, from, stride);
}
template <int T>
void stream_tile(const void* from, int64_t stride) {
  amx_emulated::load(T, from, stride);
}
template <int T>
void store_tile(void* to, int64_t stride) {
  amx_emulated::store(T, to, stride);
}
template <int C, int A, int B>
void add_int8_products() {
  amx_emulated::multiply_int8(C, A, B);
}
template <int C, int A, int B>
void add_bf16_products() {
  amx_emulated::multiply_bf16(C, A, B);
}

}  // namespace
}  // namespace ocelli::kernels::cpu
