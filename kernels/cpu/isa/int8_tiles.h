// Products of tiles with AMX, and what becomes of their sums: what the int8 products of many rows
// are made of.
//
// Included by files compiled with AMX; internal linkage, as kernels.h explains.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/isa/activations.h"
#include "kernels/cpu/isa/tiles.h"
#include "kernels/cpu/isa/vec_avx512.h"
#include "kernels/cpu/kernel_table.h"

namespace ocelli::kernels::cpu {
namespace {

using Finish = Activations<VecAvx512>;

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
struct alignas(64) Sums {
  int32_t at[kBlockRows][kBlockOutputs];
};

// The operands of one multiplication: M · 16 rows of x by N panels of weights, some inputs long.
struct Operands {
  const int8_t* x;  // tiles of 16 rows
  int64_t x_bytes;  // from 16 rows to the next
  const uint8_t* weights;
  int64_t panel_bytes;
  int tiles;
  const uint8_t* tail;  // a last tile of weights for each panel, kTileBytes apart, or null
  int kept[2] = {};     // so many tiles of each panel stay in L1, for other rows
};

// The two panels that are wanted next, brought into L2 line by line while others are multiplied.
struct Prefetch {
  const uint8_t* next = nullptr;
  const uint8_t* end = nullptr;
  int64_t panel_bytes = 0;
  int lines = 0;  // of each panel at a step

  [[gnu::always_inline]] inline void some() {
    if (next >= end) return;
    for (int i = 0; i < lines; ++i, next += 64) {
      _mm_prefetch(next, _MM_HINT_T1);
      _mm_prefetch(next + panel_bytes, _MM_HINT_T1);
    }
  }
};

// A row of sums and what belongs to it.
struct RowOfSums {
  const int32_t* sums = nullptr;
  const int32_t* correction = nullptr;
  const float* scale = nullptr;
  float* out = nullptr;
  int64_t out_stride = 0;

  [[gnu::always_inline]] inline void advance() {
    sums += kBlockOutputs;
    ++correction;
    ++scale;
    out += out_stride;
  }
};

// What is done with the sums of two panels, by the arithmetic of Ops::linear.
class Finisher {
 public:
  // For the outputs of panel `panel` and, where it exists, the next one.
  Finisher(const Int8Block& block, int panel) : first_(panel * kPanel) {
    const int count = least(block.outputs - first_, kBlockOutputs);
    for (int n = 0; n * kPanel < count; ++n) {
      masks_[n] = _cvtu32_mask16((1U << least(count - n * kPanel, kPanel)) - 1);
      scales_[n] = _mm512_loadu_ps(block.scales + (panel + n) * kPanel);
      if (!block.bias) continue;
      biases_[n] = _mm512_maskz_loadu_ps(masks_[n], block.bias + first_ + n * kPanel);
    }
    // Past the caches go whole lines, which are then not brought into L2 first.
    streams_ = block.past_caches && count == kBlockOutputs && block.out.stride % kPanel == 0 &&
               reinterpret_cast<uintptr_t>(block.out.f32(0) + first_) % 64 == 0;
  }

  // Row `row` of the block, whose sums are these.
  RowOfSums row(const Int8Block& block, const Sums& sums, int row) const {
    return {sums.at[0], block.x.corrections + row, block.x.scales + row,
            block.out.f32(row) + first_, block.out.stride};
  }

  // Panel N of a row.
  template <Epilogue kEpilogue, int N>
  [[gnu::always_inline]] inline void finish(const RowOfSums& row) const {
    constexpr bool kReads = kEpilogue == Epilogue::kAccumulate || kEpilogue == Epilogue::kMultiply;
    float* out = row.out + N * kPanel;
    const __m512i products = _mm512_add_epi32(_mm512_load_si512(row.sums + N * kPanel),
                                              _mm512_set1_epi32(*row.correction));
    __m512 y = _mm512_cvtepi32_ps(products) * scales_[N] * _mm512_set1_ps(*row.scale);
    y = _mm512_setzero_ps() + y + biases_[N];
    const __m512 old = kReads ? _mm512_maskz_loadu_ps(masks_[N], out) : _mm512_setzero_ps();
    y = Finish::activate(kEpilogue, y, old);
    if (!kReads && streams_) {
      _mm512_stream_ps(out, y);
    } else {
      _mm512_mask_storeu_ps(out, masks_[N], y);
    }
  }

 private:
  int first_;
  bool streams_;
  __mmask16 masks_[2] = {};
  __m512 scales_[2] = {};
  __m512 biases_[2] = {};
};

// What is done between multiplications: sums of before are finished, and the panels that come next
// are fetched.
template <Epilogue kEpilogue>
class Meanwhile {
 public:
  Prefetch ahead;

  // `rows` rows from this one on are to be finished in so many steps. Those before are finished at
  // once.
  void finish_behind(const Finisher& finisher, const RowOfSums& row, int rows, int steps) {
    finish_rows(left_);
    finisher_ = &finisher;
    row_ = row;
    left_ = rows;
    at_a_step_ = (rows + steps - 1) / steps;
  }

  void finish_all() { finish_rows(left_); }

  // After product I of the four of a step. A vector at a time holds up the tiles' loads least.
  template <int I>
  [[gnu::always_inline]] inline void after() {
    if (I == 0) ahead.some();
    if (left_ == 0) return;
    if (at_a_step_ == 1) {
      if (I % 2 == 1) finish<I / 2>();
    } else {
      finish<I % 2>();
    }
    if (I == 3 && at_a_step_ > 2) finish_rows(least(at_a_step_ - 2, left_));
  }

 private:
  [[gnu::always_inline]] inline void finish_rows(int count) {
    for (int i = 0; i < count; ++i) {
      finish<0>();
      finish<1>();
    }
  }

  template <int N>
  [[gnu::always_inline]] inline void finish() {
    finisher_->template finish<kEpilogue, N>(row_);
    if (N == 0) return;
    row_.advance();
    --left_;
  }

  const Finisher* finisher_ = nullptr;
  RowOfSums row_;
  int left_ = 0;
  int at_a_step_ = 0;
};

// For products with nothing to be done meanwhile.
struct Nothing {
  template <int>
  void after() {}
};

inline TileSums in_memory(Sums* sums) {
  return {reinterpret_cast<std::byte*>(sums), kBlockOutputs * sizeof(int32_t)};
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
// Tiles 0 to 3 are the sums (2m + n), 4 and 5 the rows, 6 and 7 the weights. kKeepsRows where they
// are wanted again before others, so that they and not the weights had better stay in L1.
template <int M, int N, bool kKeepsRows, typename Work>
void multiply(const Operands& o, Sums* before, Sums* sums, bool first, Work& work) {
  const auto step = [&](int tile, const uint8_t* weights, int64_t panel_bytes, const auto& begin,
                        auto& meanwhile) __attribute__((always_inline)) {
    const int8_t* x = o.x + tile * kTileBytes;
    load_or_stream<4>(x, kKeepsRows);
    load_or_stream<6>(weights, tile < o.kept[0]);
    if (M > 1) load_or_stream<5>(x + o.x_bytes, kKeepsRows);
    if (N > 1) load_or_stream<7>(weights + panel_bytes, tile < o.kept[1]);
    begin.template operator()<0>();
    _tile_dpbsud(0, 4, 6);
    meanwhile.template after<0>();
    if (M > 1) {
      begin.template operator()<2>();
      _tile_dpbsud(2, 5, 6);
    }
    meanwhile.template after<1>();
    if (N > 1) {
      begin.template operator()<1>();
      _tile_dpbsud(1, 4, 7);
    }
    meanwhile.template after<2>();
    if (M > 1 && N > 1) {
      begin.template operator()<3>();
      _tile_dpbsud(3, 5, 7);
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
