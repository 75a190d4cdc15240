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

// What is done with the sums of 32 rows and 32 outputs of a block, by the arithmetic of
// Ops::linear.
class Finisher {
 public:
  // For the outputs of panel `panel` and, where it exists, the next one.
  Finisher(const Int8Block& block, int panel) : block_(&block), first_(panel * kPanel) {
    const int count = least(block.outputs - first_, kBlockOutputs);
    panels_ = count > kPanel ? 2 : 1;
    last_ = _cvtu32_mask16((1U << (count - (panels_ - 1) * kPanel)) - 1);
    for (int n = 0; n < panels_; ++n) {
      scales_[n] = _mm512_loadu_ps(block.scales + (panel + n) * kPanel);
      biases_[n] = _mm512_setzero_ps();
      const __mmask16 mask = n == panels_ - 1 ? last_ : 0xFFFF;
      if (block.bias) biases_[n] = _mm512_maskz_loadu_ps(mask, block.bias + first_ + n * kPanel);
    }
    // Past the caches go whole lines, which are then not brought into L2 first.
    streams_ = block.past_caches && last_ == 0xFFFF && block.out.stride % kPanel == 0 &&
               reinterpret_cast<uintptr_t>(block.out.f32(0) + first_) % 64 == 0;
  }

  // Row `row` of the block from its sums.
  template <Epilogue kEpilogue>
  [[gnu::always_inline]] inline void finish(const int32_t* sums, int row) const {
    constexpr bool kReads = kEpilogue == Epilogue::kAccumulate || kEpilogue == Epilogue::kMultiply;
    const __m512i correction = _mm512_set1_epi32(block_->x.corrections[row]);
    const __m512 scale = _mm512_set1_ps(block_->x.scales[row]);
    float* out = block_->out.f32(row) + first_;
    for (int n = 0; n < panels_; ++n, out += kPanel) {
      const __m512i products = _mm512_add_epi32(_mm512_load_si512(sums + n * kPanel), correction);
      __m512 y = _mm512_cvtepi32_ps(products) * scales_[n] * scale;
      y = _mm512_setzero_ps() + y;
      if (block_->bias) y = y + biases_[n];
      const __mmask16 mask = n == panels_ - 1 ? last_ : 0xFFFF;
      const __m512 old = kReads ? _mm512_maskz_loadu_ps(mask, out) : _mm512_setzero_ps();
      y = Finish::activate(kEpilogue, y, old);
      if (!kReads && streams_) {
        _mm512_stream_ps(out, y);
      } else {
        _mm512_mask_storeu_ps(out, mask, y);
      }
    }
  }

 private:
  const Int8Block* block_;
  __m512 scales_[2] = {};
  __m512 biases_[2] = {};
  int first_;
  int panels_;
  __mmask16 last_;
  bool streams_;
};

// What is done between the steps of the multiplications of two panels: the two before are finished,
// and those that come next are fetched.
template <Epilogue kEpilogue>
class Meanwhile {
 public:
  explicit Meanwhile(const Int8Block& block)
      : finisher_(block, 0), rows_(block.rows), next_(block.rows) {}

  Prefetch ahead;

  // These sums of all rows are to be finished in so many steps. Those before are finished at once.
  void finish_behind(const Finisher& finisher, const Sums* sums, int steps) {
    finish_all();
    finisher_ = finisher;
    sums_ = sums;
    next_ = 0;
    at_a_step_ = (rows_ + steps - 1) / steps;
  }

  void finish_all() { finish_to(rows_); }

  [[gnu::always_inline]] inline void some() {
    ahead.some();
    finish_to(least(next_ + at_a_step_, rows_));
  }

 private:
  [[gnu::always_inline]] inline void finish_to(int end) {
    for (; next_ < end; ++next_) {
      finisher_.template finish<kEpilogue>(sums_[next_ / kBlockRows].at[next_ % kBlockRows], next_);
    }
  }

  Finisher finisher_;
  int rows_;
  const Sums* sums_ = nullptr;
  int next_;
  int at_a_step_ = 0;
};

inline TileSums in_memory(Sums* sums) {
  return {reinterpret_cast<std::byte*>(sums), kBlockOutputs * sizeof(int32_t)};
}

// Begins the sums x · weights of M by N tiles, or adds to them where they are not the first. They
// stay in their tiles: end_sums() or the next multiplication of as many tiles, for which these are
// the sums `before`, bring them to memory; the latter without a pause. At each step some of the
// `work` is done that waits meanwhile.
//
// Tiles 0 to 3 are the sums (2m + n), 4 and 5 the rows, 6 and 7 the weights.
template <int M, int N, typename Work>
void multiply(const Operands& o, Sums* before, Sums* sums, bool first, Work& work) {
  const auto step = [&](const int8_t* x, const uint8_t* weights, int64_t panel_bytes,
                        const auto& begin) __attribute__((always_inline)) {
    load_tile<4>(x, 64);
    load_tile<6>(weights, 64);
    if (M > 1) load_tile<5>(x + o.x_bytes, 64);
    if (N > 1) load_tile<7>(weights + panel_bytes, 64);
    begin.template operator()<0>();
    _tile_dpbsud(0, 4, 6);
    if (M > 1) {
      begin.template operator()<2>();
      _tile_dpbsud(2, 5, 6);
    }
    if (N > 1) {
      begin.template operator()<1>();
      _tile_dpbsud(1, 4, 7);
    }
    if (M > 1 && N > 1) {
      begin.template operator()<3>();
      _tile_dpbsud(3, 5, 7);
    }
  };
  const auto begin = [&]<int T>() __attribute__((always_inline)) {
    begin_sum<T>(in_memory(before), in_memory(sums), first);
  };
  const auto go_on = []<int>() {};
  if (o.tiles == 0) return step(o.x, o.tail, kTileBytes, begin);
  step(o.x, o.weights, o.panel_bytes, begin);
  work.some();
  for (int t = 1; t < o.tiles; ++t) {
    step(o.x + t * kTileBytes, o.weights + t * kTileBytes, o.panel_bytes, go_on);
    work.some();
  }
  if (o.tail) step(o.x + o.tiles * kTileBytes, o.tail, kTileBytes, go_on);
}

}  // namespace
}  // namespace ocelli::kernels::cpu
