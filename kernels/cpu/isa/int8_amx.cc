#include <immintrin.h>

#include "kernels/cpu/isa/tables.h"
#include "kernels/cpu/isa/tiles.h"
#include "kernels/cpu/isa/whole_rows.h"

namespace ocelli::kernels::cpu {
namespace {

// Sums to outputs by the arithmetic of Ops::linear for quantised weights.
class Int8Finisher {
 public:
  // For panel `panel` and, where it exists, the next one.
  Int8Finisher(const Int8Block& block, int panel) : outputs_(block, panel) {
    for (int n = 0; n < 2 && (panel + n) * kPanel < block.outputs; ++n) {
      scales_[n] = _mm512_loadu_ps(block.scales + (panel + n) * kPanel);
    }
  }

  // A row of sums and what belongs to it.
  struct Row {
    const int32_t* sums = nullptr;
    const int32_t* correction = nullptr;
    const float* scale = nullptr;
    OutputRow out;

    [[gnu::always_inline]] inline void advance() {
      sums += kBlockOutputs;
      ++correction;
      ++scale;
      out.advance();
    }
  };
  // Row `row` of the block, whose sums are these.
  Row row(const Int8Block& block, const Sums<int32_t>& sums, int row) const {
    return {sums.at[0], block.x.corrections + row, block.x.scales + row, outputs_.row(block, row)};
  }

  // Panel N of a row.
  template <Epilogue kEpilogue, int N>
  [[gnu::always_inline]] inline void finish(Row& row) const {
    const __m512i products = _mm512_add_epi32(_mm512_load_si512(row.sums + N * kPanel),
                                              _mm512_set1_epi32(*row.correction));
    const __m512 y = _mm512_cvtepi32_ps(products) * scales_[N] * _mm512_set1_ps(*row.scale);
    outputs_.put<kEpilogue, N>(y, row.out);
  }

 private:
  Outputs outputs_;
  __m512 scales_[2] = {};
};

struct Int8Products {
  using Block = Int8Block;
  using Sum = int32_t;
  using Finisher = Int8Finisher;

  template <int C, int A, int B>
  [[gnu::always_inline]] static inline void multiply() {
    add_int8_products<C, A, B>();
  }
  static const int8_t* rows(const Int8Block& block, int row) { return block.x.from(row).values; }
  static const uint8_t* weights(const Int8Block& block) { return block.values; }
};

// The product of a block in groups, whose sums are floats from group to group.
class Groups {
 public:
  explicit Groups(const Int8Block& block) : block_(block) {}

  void run() {
    for (int first = 0; first < block_.outputs; first += kBlockOutputs) {
      const int panel = first / kPanel;
      for (int row = 0; row < block_.rows; row += kBlockRows) {
        if (block_.outputs - first > kPanel) {
          one<2>(panel, row);
        } else {
          one<1>(panel, row);
        }
      }
    }
  }

 private:
  template <int N>
  void one(int panel, int row) {
    const QuantisedRows x = block_.x.from(row);
    const int rows = least(block_.rows - row, kBlockRows);
    const int tiles = block_.steps / kTileSteps;  // of a group
    const int64_t panel_bytes = int64_t{x.groups} * tiles * kTileBytes;
    for (int g = 0; g < x.groups; ++g) {
      const int64_t at = int64_t{g} * tiles * kTileBytes;
      const Operands operands = {bytes_at(x.values + at),
                                 x.stride * kTileRows,
                                 bytes_at(block_.values + panel * panel_bytes + at),
                                 panel_bytes,
                                 tiles,
                                 nullptr,
                                 {tiles, tiles}};
      if (rows > kTileRows) {
        multiply<Int8Products, 2, N, true>(operands, nullptr, &sums_, true, none_);
        end_sums<2, N>(in_memory(&sums_));
      } else {
        multiply<Int8Products, 1, N, true>(operands, nullptr, &sums_, true, none_);
        end_sums<1, N>(in_memory(&sums_));
      }
      add_group<N>(x, rows, block_.scales + int64_t{panel} * x.groups * kPanel, g);
    }
    const int first = panel * kPanel;
    for (int r = 0; r < rows; ++r) {
      Finish::finish(block_.epilogue, totals_[r], block_.bias ? block_.bias + first : nullptr,
                     least(block_.outputs - first, N * kPanel), block_.out.from(row + r, first));
    }
  }

  // totals += float(sums + correction) · ws · xs for group g; totals = … for the first.
  template <int N>
  void add_group(const QuantisedRows& x, int rows, const float* scales, int g) {
    for (int n = 0; n < N; ++n) {
      const __m512 ws = _mm512_loadu_ps(scales + (int64_t{n} * x.groups + g) * kPanel);
      for (int r = 0; r < rows; ++r) {
        const int64_t at = int64_t{r} * x.groups + g;
        const __m512i products = _mm512_add_epi32(_mm512_load_si512(&sums_.at[r][n * kPanel]),
                                                  _mm512_set1_epi32(x.corrections[at]));
        const __m512 scaled = _mm512_cvtepi32_ps(products) * ws * _mm512_set1_ps(x.scales[at]);
        float* total = &totals_[r][n * kPanel];
        const __m512 old = g == 0 ? _mm512_setzero_ps() : _mm512_load_ps(total);
        _mm512_store_ps(total, old + scaled);
      }
    }
  }

  const Int8Block& block_;
  Nothing none_;
  Sums<int32_t> sums_;
  alignas(64) float totals_[kBlockRows][kBlockOutputs];
};

}  // namespace

void tile_kernels::linear_int8(const Int8Block& block) {
  if (!block.x.tiles) return linear_int8_avx512(block);
  configure_tiles();
  if (block.x.groups == 1) {
    multiply_whole_rows<Int8Products>(block);
  } else {
    Groups(block).run();
  }
  // Without tiles in use, the system has less to save when it switches threads.
  release_tiles();
}

}  // namespace ocelli::kernels::cpu
