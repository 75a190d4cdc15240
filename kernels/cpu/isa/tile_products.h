// Products of tiles, of int8 or bf16: what the products of many rows are made of.
//
// Included by files compiled for AVX-512; internal linkage, as kernels.h explains.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/isa/tiles.h"
#include "kernels/cpu/kernel_table.h"

namespace ocelli::kernels::cpu {
namespace {

constexpr int kPanel = 16;        // outputs of a panel: the columns of a tile
constexpr int kTileRows = 16;     // rows of activations in a tile
constexpr int kTileBytes = 1024;  // 16 rows of 64 bytes
constexpr int kTileSteps = 16;    // lines of weights in a tile: the rows of a tile of weights
constexpr int kBlockRows = 2 * kTileRows;
constexpr int kBlockOutputs = 2 * kPanel;
static_assert(kBlockRows == kQuantisedRowBlock && kTileRows == QuantisedRows::kTileRows);

inline int least(int a, int b) {
  return a < b ? a : b;
}

inline int most(int a, int b) {
  return a > b ? a : b;
}

// Sums of 32 rows and 32 outputs.
template <typename Sum>
struct alignas(64) Sums {
  Sum at[kBlockRows][kBlockOutputs];
};

// The operands of one multiplication: M · 16 rows of x by N panels of weights, some inputs long.
struct Operands {
  const std::byte* x;  // tiles of 16 rows
  int64_t x_bytes;     // from 16 rows to the next
  const std::byte* weights;
  int64_t panel_bytes;
  int tiles;
  const std::byte* tail;  // a last tile of weights for each panel, kTileBytes apart, or null
  int kept[2] = {};       // so many tiles of each panel stay in L1, for other rows
};

inline const std::byte* bytes_at(const void* memory) {
  return static_cast<const std::byte*>(memory);
}

// For products with nothing to be done meanwhile.
struct Nothing {
  template <int>
  void after() {}
};

template <typename Sum>
TileSums in_memory(Sums<Sum>* sums) {
  return {reinterpret_cast<std::byte*>(sums), kBlockOutputs * sizeof(Sum)};
}

template <int T>
[[gnu::always_inline]] inline void load_or_stream(const void* from, bool kept) {
  if (kept) {
    load_tile<T>(from, 64);
  } else {
    stream_tile<T>(from, 64);
  }
}

// A tile is stored at least every so many steps: one that is stored after some 700 ns without any
// takes 300 ns, as if what carries it had gone to sleep, and otherwise 5.
constexpr int kAwakeSteps = 8;

// Begins the sums x · weights of M by N tiles, or adds to them where they are not the first. They
// stay in their tiles: end_sums() or the next multiplication of as many tiles, for which these are
// the sums `before`, bring them to memory; the latter without a pause. work.after<I>(), I from 0 to
// 3, does some of what waits meanwhile at each step but the first and a tail.
//
// Kind::multiply<C, A, B>() adds the product of tiles A, rows, and B, weights, to tile C, sums of
// Kind::Sum. Tiles 0 to 3 are the sums (2m + n), 4 and 5 the rows, 6 and 7 the weights. kKeepsRows
// where they are wanted again before others, so that they and not the weights had better stay in
// L1.
template <typename Kind, int M, int N, bool kKeepsRows, typename Work>
void multiply(const Operands& o, Sums<typename Kind::Sum>* before, Sums<typename Kind::Sum>* sums,
              bool first, Work& work) {
  const auto step = [&](int tile, const std::byte* weights, int64_t panel_bytes, const auto& begin,
                        auto& meanwhile) __attribute__((always_inline)) {
    const std::byte* x = o.x + tile * kTileBytes;
    load_or_stream<4>(x, kKeepsRows);
    load_or_stream<6>(weights, tile < o.kept[0]);
    if (M > 1) load_or_stream<5>(x + o.x_bytes, kKeepsRows);
    if (N > 1) load_or_stream<7>(weights + panel_bytes, tile < o.kept[1]);
    begin.template operator()<0>();
    Kind::template multiply<0, 4, 6>();
    meanwhile.template after<0>();
    if (M > 1) {
      begin.template operator()<2>();
      Kind::template multiply<2, 5, 6>();
    }
    meanwhile.template after<1>();
    if (N > 1) {
      begin.template operator()<1>();
      Kind::template multiply<1, 4, 7>();
    }
    meanwhile.template after<2>();
    if (M > 1 && N > 1) {
      begin.template operator()<3>();
      Kind::template multiply<3, 5, 7>();
    }
    meanwhile.template after<3>();
  };
  const auto begin = [&]<int T>() __attribute__((always_inline)) {
    begin_sum<T>(in_memory(before), in_memory(sums), first);
  };
  const auto go_on = []<int>() {};
  Nothing nothing;
  // A copy, which can stay in registers: what is written to outputs cannot change it.
  Work here = work;
  if (o.tiles == 0) return step(0, o.tail, kTileBytes, begin, nothing);
  step(0, o.weights, o.panel_bytes, begin, nothing);
  alignas(64) std::byte nowhere[kTileBytes];
  for (int t = 1; t < o.tiles; ++t) {
    step(t, o.weights + t * kTileBytes, o.panel_bytes, go_on, here);
    if (t % kAwakeSteps == 0) store_tile<7>(nowhere, 64);
  }
  work = here;
  if (o.tail) step(o.tiles, o.tail, kTileBytes, go_on, nothing);
}

}  // namespace
}  // namespace ocelli::kernels::cpu
