// The product of a block of rows in tiles of int8 or bf16: how rows, weights and sums pass through
// the caches, and what becomes of the sums meanwhile.
//
// A Kind of product says
//   Block, Sum                what is computed: Int8Block or Bf16Block; what tiles sum
//   multiply<C, A, B>()       as in tile_products.h
//   rows(block, row), weights(block)
//   Finisher                  (block, panel), of two panels; Row row(block, sums, row);
//                             finish<Epilogue, N>(Row), of panel N
// Included like tile_products.h, and under the same rule of linkage.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/cpu/isa/activations.h"
#include "kernels/cpu/isa/tile_products.h"
#include "kernels/cpu/isa/vec_avx512.h"
#include "kernels/cpu/kernel_table.h"

namespace ocelli::kernels::cpu {
namespace {

using Finish = Activations<VecAvx512>;

// The two panels that are wanted next, brought into L2 line by line while others are multiplied.
struct Prefetch {
  const std::byte* next = nullptr;
  const std::byte* end = nullptr;
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

// A row of outputs, from those of two panels on.
struct OutputRow {
  std::byte* at = nullptr;
  int64_t stride = 0;  // bytes to the next row
  __m512 first = {};   // in bf16: those of the first panel, which go out with the second's

  [[gnu::always_inline]] inline void advance() { at += stride; }
};

// Where the sums of two panels go: what Finishers share.
class Outputs {
 public:
  // For the outputs of panel `panel` and, where it exists, the next one.
  template <typename Block>
  Outputs(const Block& block, int panel)
      : first_(panel * kPanel), as_bf16_(block.out.dtype == DType::kBF16) {
    const int count = least(block.outputs - first_, kBlockOutputs);
    for (int n = 0; n * kPanel < count; ++n) {
      masks_[n] = _cvtu32_mask16((1U << least(count - n * kPanel, kPanel)) - 1);
      if (!block.bias) continue;
      biases_[n] = _mm512_maskz_loadu_ps(masks_[n], block.bias + first_ + n * kPanel);
    }
    // Past the caches go whole lines, which are then not brought into L2 first.
    const OutputRow first = row(block, 0);
    streams_ = block.past_caches && count == kBlockOutputs && first.stride % 64 == 0 &&
               reinterpret_cast<uintptr_t>(first.at) % 64 == 0;
  }

  template <typename Block>
  OutputRow row(const Block& block, int row) const {
    return {block.out.from(row, first_).data, block.out.stride * (as_bf16_ ? 2 : 4)};
  }

  // Panel N of a row of outputs from y, the scaled sums.
  template <Epilogue kEpilogue, int N>
  [[gnu::always_inline]] inline void put(__m512 y, OutputRow& row) const {
    constexpr bool kReads = reads_output(kEpilogue);
    float* out = reinterpret_cast<float*>(row.at) + N * kPanel;
    y = _mm512_setzero_ps() + y + biases_[N];
    const __m512 old = kReads ? _mm512_maskz_loadu_ps(masks_[N], out) : _mm512_setzero_ps();
    y = Finish::activate(kEpilogue, y, old);
    if (!kReads && as_bf16_) {
      put_bf16<N>(y, row);
    } else if (!kReads && streams_) {
      _mm512_stream_ps(out, y);
    } else {
      _mm512_mask_storeu_ps(out, masks_[N], y);
    }
  }

 private:
  // Both panels at once, a line.
  template <int N>
  [[gnu::always_inline]] inline void put_bf16(__m512 y, OutputRow& row) const {
    if (N == 0) {
      row.first = y;
      return;
    }
    const auto both = (__m512i)_mm512_cvtne2ps_pbh(y, row.first);
    if (streams_) {
      _mm512_stream_si512((__m512i*)row.at, both);
    } else {
      const auto mask = static_cast<__mmask32>(masks_[1]) << 16 | masks_[0];
      _mm512_mask_storeu_epi16(row.at, mask, both);
    }
  }

  int first_;
  bool as_bf16_;
  bool streams_;
  __mmask16 masks_[2] = {};
  __m512 biases_[2] = {};
};

// What is done between multiplications: sums of before are finished, and the panels that come next
// are fetched.
template <typename Finisher, Epilogue kEpilogue>
class Meanwhile {
 public:
  Prefetch ahead;

  // `rows` rows from this one on are to be finished in so many steps. Those before are finished at
  // once.
  void finish_behind(const Finisher& finisher, const typename Finisher::Row& row, int rows,
                     int steps) {
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
  typename Finisher::Row row_;
  int left_ = 0;
  int at_a_step_ = 0;
};

// From so many blocks of rows on, rows pass L1 by, and L1 keeps weights for the next block: so many
// tiles of two panels, or of one.
constexpr int kBlocksToPass = 4;
constexpr int kKeptTiles = 36;
constexpr int kKeptOfOnePanel = 32;
// What of the rows stays in L2 while weights pass, in bytes: all of them where the sums of a block
// are finished at once, and otherwise beside everyone's sums.
constexpr int64_t kWholeRowBytes = 1'400'000;
constexpr int64_t kRowBytes = 1'050'000;

struct Range {
  int begin;
  int end;
};

// Part `i` of `count` even parts of n.
inline Range part_of(int n, int count, int i) {
  return {n * i / count, n * (i + 1) / count};
}

inline int parts(int n, int each) {
  return (n + each - 1) / each;
}

// The product of a block whose rows are summed from end to end.
//
// All of its inputs, or as many as fit L2 for all rows; of those two panels of weights; and with
// these all rows, 32 at a time.
template <typename Kind, Epilogue kEpilogue>
class WholeRows {
 public:
  using Block = typename Kind::Block;
  using Finisher = typename Kind::Finisher;
  using BlockSums = Sums<typename Kind::Sum>;

  explicit WholeRows(const Block& block) : block_(block) {}

  void run() {
    const int64_t line_bytes = int64_t{row_blocks()} * kBlockRows * 64;
    const int fitting = static_cast<int>(kRowBytes / line_bytes) + 1;
    const int count = all_tiles() * line_bytes <= kWholeRowBytes ? 1 : parts(all_tiles(), fitting);
    for (int i = 0; i < count; ++i) {
      const Range inputs = part_of(all_tiles(), count, i);
      for (int panel = 0; panel < panels(); panel += 2) multiply_panels(panel, inputs);
    }
    bring_back();
    meanwhile_.finish_all();
    _mm_sfence();  // after stores past the caches
  }

 private:
  int panels() const { return parts(block_.outputs, kPanel); }
  int row_blocks() const { return parts(block_.rows, kBlockRows); }
  bool rows_pass() const { return row_blocks() >= kBlocksToPass; }
  int tail_steps() const { return block_.steps % kTileSteps; }
  int all_tiles() const { return parts(block_.steps, kTileSteps); }
  int64_t panel_bytes() const { return int64_t{block_.steps} * 64; }
  const std::byte* weights_of(int panel) const {
    return bytes_at(Kind::weights(block_)) + panel * panel_bytes();
  }
  bool is_last(Range inputs) const { return inputs.end == all_tiles(); }

  // `inputs` count tiles.
  void multiply_panels(int panel, Range inputs) {
    fetch_after(panel, inputs);
    if (is_last(inputs)) {
      copy_tail(panel);
      finisher(panel) = Finisher(block_, panel);
    }
    for (int row = 0; row < block_.rows; row += kBlockRows) one(panel, row, inputs);
  }

  // What comes after these panels is fetched meanwhile.
  void fetch_after(int panel, Range inputs) {
    const std::byte* next = weights_of(panel + 2);
    if (panel + 2 >= panels()) next = is_last(inputs) ? bytes_at(block_.next) : weights_of(0);
    if (!next) return;
    next += int64_t{inputs.begin} * kTileBytes;
    Prefetch& ahead = meanwhile_.ahead;
    ahead.next = next;
    ahead.end = next + int64_t{inputs.end - inputs.begin} * kTileBytes;
    ahead.panel_bytes = panel_bytes();
    ahead.lines = parts(kTileSteps, row_blocks());
  }

  // Where a panel does not end on a whole tile, what follows it is not its own, nor perhaps there.
  void copy_tail(int panel) {
    if (tail_steps() == 0) return;
    const int count = least(2, panels() - panel);
    for (int n = 0; n < count; ++n) {
      const std::byte* end = weights_of(panel + n + 1);
      std::memcpy(tail_ + n * kTileBytes, end - tail_steps() * 64, tail_steps() * 64);
    }
    // The compiler does not know that tiles are loaded from memory.
    asm volatile("" ::: "memory");
  }

  // That of this pair of panels, or of the one before.
  Finisher& finisher(int panel) { return finishers_[panel / 2 % 2]; }

  // Where the sums of a block stand: all of them wait for the rest of their inputs, or two take
  // turns, one being multiplied while the other is finished.
  BlockSums& sums(int panel, int row, Range inputs) {
    const int number = panel / 2 * row_blocks() + row / kBlockRows;
    const bool alone = inputs.begin == 0 && is_last(inputs);
    return reinterpret_cast<BlockSums*>(block_.scratch)[alone ? number % 2 : number];
  }

  void one(int panel, int row, Range inputs) {
    const bool tail = is_last(inputs) && tail_steps() > 0;
    const int tiles = inputs.end - inputs.begin - (tail ? 1 : 0);
    Operands operands = {bytes_at(Kind::rows(block_, row)) + int64_t{inputs.begin} * kTileBytes,
                         block_.x.stride * kTileRows,
                         weights_of(panel) + int64_t{inputs.begin} * kTileBytes,
                         panel_bytes(),
                         tiles,
                         tail ? tail_ : nullptr};
    operands.kept[0] = rows_pass() ? least(tiles, kKeptOfOnePanel) : tiles;
    operands.kept[1] = rows_pass() ? least(tiles, kKeptTiles - operands.kept[0]) : tiles;
    const int rows = least(block_.rows - row, kBlockRows);
    BlockSums& to = sums(panel, row, inputs);
    const bool first = inputs.begin == 0;
    if (rows_pass()) {
      multiply_block<false>(operands, rows, panels() - panel, first, to);
    } else {
      multiply_block<true>(operands, rows, panels() - panel, first, to);
    }
    if (!is_last(inputs)) return;
    const Finisher& own = finisher(panel);
    meanwhile_.finish_behind(own, own.row(block_, to, row), rows, most(1, tiles - 1));
  }

  template <bool kKeepsRows>
  void multiply_block(const Operands& operands, int rows, int panels, bool first, BlockSums& to) {
    if (rows > kTileRows && panels > 1) {
      multiply<Kind, 2, 2, kKeepsRows>(operands, before_, &to, first, meanwhile_);
      before_ = &to;
      return;
    }
    bring_back();
    if (rows > kTileRows) {
      multiply<Kind, 2, 1, kKeepsRows>(operands, nullptr, &to, first, meanwhile_);
      end_sums<2, 1>(in_memory(&to));
    } else if (panels > 1) {
      multiply<Kind, 1, 2, kKeepsRows>(operands, nullptr, &to, first, meanwhile_);
      end_sums<1, 2>(in_memory(&to));
    } else {
      multiply<Kind, 1, 1, kKeepsRows>(operands, nullptr, &to, first, meanwhile_);
      end_sums<1, 1>(in_memory(&to));
    }
  }

  // The sums that are still in the tiles.
  void bring_back() {
    if (before_) end_sums<2, 2>(in_memory(before_));
    before_ = nullptr;
  }

  const Block& block_;
  Meanwhile<Finisher, kEpilogue> meanwhile_;
  Finisher finishers_[2] = {Finisher(block_, 0), Finisher(block_, 0)};
  BlockSums* before_ = nullptr;  // those of the block before, which are still in the tiles
  alignas(64) std::byte tail_[2 * kTileBytes] = {};
};

template <typename Kind>
void multiply_whole_rows(const typename Kind::Block& block) {
  switch (block.epilogue) {
    case Epilogue::kStore:
      return WholeRows<Kind, Epilogue::kStore>(block).run();
    case Epilogue::kAccumulate:
      return WholeRows<Kind, Epilogue::kAccumulate>(block).run();
    case Epilogue::kMultiply:
      return WholeRows<Kind, Epilogue::kMultiply>(block).run();
    case Epilogue::kGeluTanh:
      return WholeRows<Kind, Epilogue::kGeluTanh>(block).run();
    case Epilogue::kGeluErf:
      return WholeRows<Kind, Epilogue::kGeluErf>(block).run();
    case Epilogue::kSilu:
      return WholeRows<Kind, Epilogue::kSilu>(block).run();
  }
}

}  // namespace
}  // namespace ocelli::kernels::cpu
