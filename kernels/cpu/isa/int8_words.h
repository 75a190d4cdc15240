// int8 products of many rows with AVX2, whose multiplication of bytes would saturate: weights and
// activations are widened to words once, a piece at a time, and multiplied exactly.
//
// Included by int8_avx2.cc alone; internal linkage, as kernels.h explains.
#pragma once

#include <cstring>

#include "kernels/cpu/isa/int8_kernels.h"
#include "kernels/cpu/isa/vec_avx2.h"

namespace ocelli::kernels::cpu {
namespace {

// A step's four inputs are two pairs of words, the even ones and the odd ones: VPMADDWD multiplies
// a pair of each of eight outputs with a pair of a row.
template <typename Finish>
class WordProducts {
 public:
  // Fewer rows do not repay the widening.
  static constexpr int kFewestRows = 6;

  explicit WordProducts(const Int8Block& block) : block_(block) {}

  void run() {
    const int passes = (block_.rows + kPassRows - 1) / kPassRows;
    const int even = (block_.rows + passes - 1) / passes;
    const int rows = (even + kRows - 1) / kRows * kRows;
    const int panels = (block_.outputs + kPanel - 1) / kPanel;
    for (int row = 0; row < block_.rows; row += rows) {
      for (int panel = 0; panel < panels; panel += kPanels) {
        pass_ = {row, least(rows, block_.rows - row), panel, least(kPanels, panels - panel)};
        multiply_pass();
      }
    }
  }

 private:
  static constexpr int kRows = 6;     // by a panel's two vectors they are 12 sums of 16 registers
  static constexpr int kPanels = 4;   // for which rows are widened once
  static constexpr int kSteps = 128;  // at most, of a piece: its words of six rows and of a panel
                                      // fit an L1 of 32 KB
  static constexpr int kPassRows = 126;
  static constexpr int kStride = kPanels * kPanel;
  static constexpr int kLanes = VecAvx2::kLanes;
  static_assert(kPassRows % kRows == 0);

  // Rows and panels whose sums are in hand.
  struct Pass {
    int row;
    int rows;
    int panel;
    int panels;
  };

  static int least(int a, int b) { return a < b ? a : b; }

  void multiply_pass() {
    const QuantisedRows x = block_.x.from(pass_.row);
    std::memset(totals_, 0, sizeof totals_);
    const int pieces = (block_.steps + kSteps - 1) / kSteps;
    for (int g = 0; g < x.groups; ++g) {
      for (int r = 0; r < pass_.rows; ++r) {
        const __m256i start = _mm256_set1_epi32(x.corrections[r * x.groups + g]);
        for (int n = 0; n < kStride; n += kLanes) {
          _mm256_store_si256((__m256i*)&sums_[r][n], start);
        }
      }
      for (int i = 0; i < pieces; ++i) {
        const int begin = block_.steps * i / pieces;
        const int end = block_.steps * (i + 1) / pieces;
        multiply_piece(x, int64_t{g} * block_.steps + begin, end - begin);
      }
      add_group(x, g);
    }
    const int first = pass_.panel * kPanel;
    const int count = least(block_.outputs - first, kStride);
    for (int r = 0; r < pass_.rows; ++r) {
      Finish::finish(block_.epilogue, totals_[r], block_.bias ? block_.bias + first : nullptr,
                     count, block_.out.from(pass_.row + r, first));
    }
  }

  // totals += float(sums) · ws · xs for group g.
  void add_group(const QuantisedRows& x, int g) {
    for (int n = 0; n < pass_.panels * kPanel; n += kLanes) {
      const int64_t panel = int64_t{pass_.panel} + n / kPanel;
      const __m256 ws =
          _mm256_loadu_ps(block_.scales + (panel * x.groups + g) * kPanel + n % kPanel);
      for (int r = 0; r < pass_.rows; ++r) {
        const __m256i sums = _mm256_load_si256((const __m256i*)&sums_[r][n]);
        const __m256 xs = _mm256_set1_ps(x.scales[r * x.groups + g]);
        const __m256 old = _mm256_load_ps(&totals_[r][n]);
        _mm256_store_ps(&totals_[r][n], old + _mm256_cvtepi32_ps(sums) * ws * xs);
      }
    }
  }

  // sums += products of the steps from `first` on, counted through all groups.
  void multiply_piece(const QuantisedRows& x, int64_t first, int steps) {
    const int64_t panel_bytes = int64_t{x.groups} * block_.steps * kLine;
    for (int p = 0; p < pass_.panels; ++p) {
      widen_weights(block_.values + (pass_.panel + p) * panel_bytes + first * kLine, steps,
                    weights_[p]);
    }
    for (int row = 0; row < pass_.rows; row += kRows) {
      const int rows = least(kRows, pass_.rows - row);
      // What is left of earlier rows stands for rows that are missing.
      for (int r = 0; r < rows; ++r) {
        widen_row(x.values + (row + r) * x.stride + first * kStep, steps, x_[r]);
      }
      for (int p = 0; p < pass_.panels; ++p) multiply(weights_[p], row, p * kPanel, steps);
    }
  }

  // Even words and odd ones of the bytes at p.
  static void widen_weights(const uint8_t* p, int steps, uint16_t (*out)[kLine]) {
    for (int s = 0; s < steps; ++s, p += kLine) {
      for (int half = 0; half < 2; ++half) {
        const __m256i bytes = _mm256_loadu_si256((const __m256i*)(p + half * kLine / 2));
        auto* to = (__m256i*)out[s] + half;
        _mm256_store_si256(to, _mm256_and_si256(bytes, _mm256_set1_epi16(255)));
        _mm256_store_si256(to + 2, _mm256_srli_epi16(bytes, 8));
      }
    }
  }

  // The same of a row.
  static void widen_row(const int8_t* p, int steps, int32_t (&out)[2][kSteps]) {
    for (int s = 0; s < steps; s += kLanes) {
      __m256i bytes = _mm256_setzero_si256();
      if (steps - s >= kLanes) {
        bytes = _mm256_loadu_si256((const __m256i*)(p + s * kStep));
      } else {
        std::memcpy(&bytes, p + s * kStep, (steps - s) * kStep);
      }
      const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8);
      _mm256_store_si256((__m256i*)&out[0][s], even);
      _mm256_store_si256((__m256i*)&out[1][s], _mm256_srai_epi16(bytes, 8));
    }
  }

  // Not intrinsics: the compiler would add even and odd products first, for which registers are
  // missing.
  [[gnu::always_inline]] static inline void add_products(__m256i w, __m256i x, __m256i& sums) {
    __m256i products;
    asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sums), "=&x"(products) : "x"(w), "x"(x));
  }

  // Rows `row` … by the panel at column `n` of the sums.
  void multiply(const uint16_t (*weights)[kLine], int row, int n, int steps) {
    __m256i acc[kRows][2];
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      acc[r][0] = _mm256_load_si256((const __m256i*)&sums_[row + r][n]);
      acc[r][1] = _mm256_load_si256((const __m256i*)&sums_[row + r][n + kLanes]);
    }
    const int32_t(*x)[2][kSteps] = x_;
    for (int s = 0; s < steps; ++s) {
      const auto* line = (const __m256i*)weights[s];
#pragma GCC unroll 2
      for (int odd = 0; odd < 2; ++odd) {
        const __m256i w0 = _mm256_load_si256(line + 2 * odd);
        const __m256i w1 = _mm256_load_si256(line + 2 * odd + 1);
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r) {
          const __m256i inputs = _mm256_set1_epi32(x[r][odd][s]);
          add_products(w0, inputs, acc[r][0]);
          add_products(w1, inputs, acc[r][1]);
        }
      }
    }
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      _mm256_store_si256((__m256i*)&sums_[row + r][n], acc[r][0]);
      _mm256_store_si256((__m256i*)&sums_[row + r][n + kLanes], acc[r][1]);
    }
  }

  const Int8Block& block_;
  Pass pass_ = {};
  alignas(64) uint16_t weights_[kPanels][kSteps][kLine];
  alignas(64) int32_t x_[kRows][2][kSteps] = {};
  alignas(64) int32_t sums_[kPassRows][kStride];
  alignas(64) float totals_[kPassRows][kStride];
};

}  // namespace
}  // namespace ocelli::kernels::cpu
