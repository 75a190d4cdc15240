// Products with bf16 matrices in panels, written once over a vector type; kernels/pair_packing.h
// has the weights and Ops::linear the arithmetic.
//
// Included like kernels.h, and under the same rule of linkage. The product of two bf16 is exact in
// fp32, so that it makes no difference whether it is fused with the sum.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/isa/activations.h"
#include "kernels/cpu/isa/half.h"
#include "kernels/cpu/kernel_table.h"

namespace ocelli::kernels::cpu {
namespace {

// Vec says how many rows and vectors of outputs are worth doing at once, so that two sums of each
// fit the registers: kPairRows by one vector, and up to kFewPairRows by two.
template <typename Vec>
struct Bf16Kernels {
  using V = typename Vec::V;
  static constexpr int kLanes = Vec::kLanes;
  static constexpr int kPanel = 16;       // outputs
  static constexpr int kLine = 32;        // values: two inputs of a panel's outputs
  static constexpr int kBlockSteps = 16;  // lines whose products are summed by themselves

  // x rounded to bf16, to nearest, even, in the upper half of a word; NaN stays NaN.
  [[gnu::always_inline]] static inline uint32_t rounded(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const uint32_t nearest = bits + 0x7FFF + (bits >> 16 & 1);
    return x != x ? 0x7FC00000U : nearest & 0xFFFF0000U;
  }

  static uint32_t rounded(Brain x) { return uint32_t{x.bits} << 16; }

  static void round_row(const InputRow& x, const Bf16Rows& out) {
    if (x.dtype == DType::kBF16) {
      round_row(reinterpret_cast<const Brain*>(x.values), x.count, out);
    } else {
      round_row(reinterpret_cast<const float*>(x.values), x.count, out);
    }
  }
  template <typename T>
  static void round_row(const T* x, int n, const Bf16Rows& out) {
    const auto padded = static_cast<int>(out.padded());
    if (!out.tiles) {
      auto* words = reinterpret_cast<uint32_t*>(out.data);
      for (int i = 0; i < n; ++i) words[i] = rounded(x[i]);
      for (int i = n; i < padded; ++i) words[i] = 0;
      return;
    }
    for (int first = 0; first < padded; first += kLine) {
      auto* values = reinterpret_cast<uint16_t*>(out.tile_at(first));
      const int count = n - first < kLine ? n - first : kLine;
      for (int i = 0; i < count; ++i)
        values[i] = static_cast<uint16_t>(rounded(x[first + i]) >> 16);
      for (int i = count < 0 ? 0 : count; i < kLine; ++i) values[i] = 0;
    }
  }

  // The operands of one multiplication: rows from `x` on by vectors from vector `first` on.
  struct Operands {
    const float* x;
    int64_t x_stride;
    const uint16_t* weights;  // of the panel that vector 0 belongs to
    int64_t panel_values;
    int steps;

    const uint16_t* vector(int v) const {
      constexpr int kParts = kPanel / kLanes;
      return weights + v / kParts * panel_values + v % kParts * 2 * kLanes;
    }
  };

  // totals[r][v] = the sums of R rows and the N vectors from `first` on.
  template <int R, int N>
  static void tile(const Operands& o, int first, V (&totals)[R][N]) {
    constexpr int kThird = 3;  // rows that share an address register, and the stride another
    const float* at[(R + kThird - 1) / kThird];
#pragma GCC unroll 16
    for (int r = 0; r < R; r += kThird) {
      at[r / kThird] = o.x + r * o.x_stride;
      asm("" : "+r"(at[r / kThird]));  // else the compiler takes a register for each row
    }
    const uint16_t* w[N];
    for (int v = 0; v < N; ++v) w[v] = o.vector(first + v);
    for (auto& row : totals) {
      for (V& total : row) total = Vec::zero();
    }
    for (int s = 0; s < o.steps; s += kBlockSteps) {
      const int end = s + kBlockSteps < o.steps ? s + kBlockSteps : o.steps;
      V even[R][N];
      V odd[R][N];
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        for (int v = 0; v < N; ++v) even[r][v] = odd[r][v] = Vec::zero();
      }
      for (int step = s; step < end; ++step) {
        V we[N];
        V wo[N];
#pragma GCC unroll 4
        for (int v = 0; v < N; ++v) Vec::load_pairs(w[v] + int64_t{step} * kLine, we[v], wo[v]);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
          const float* x = at[r / kThird] + r % kThird * o.x_stride + int64_t{step} * 2;
          const V xe = Vec::set1(x[0]);
          const V xo = Vec::set1(x[1]);
#pragma GCC unroll 4
          for (int v = 0; v < N; ++v) {
            even[r][v] = Vec::fma(xe, we[v], even[r][v]);
            odd[r][v] = Vec::fma(xo, wo[v], odd[r][v]);
          }
        }
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        for (int v = 0; v < N; ++v) totals[r][v] = totals[r][v] + (even[r][v] + odd[r][v]);
      }
    }
  }

  // The rows from `row` on by N vectors, in blocks of at most R.
  template <int R, int N>
  static void rows_of_vectors(const Bf16Block& block, int first, int row = 0) {
    const int64_t panel_values = int64_t{block.steps} * kLine;
    const int output = first * kLanes;
    const int count = block.outputs - output < N * kLanes ? block.outputs - output : N * kLanes;
    for (; row + R <= block.rows; row += R) {
      const Bf16Rows x = block.x.from(row);
      V totals[R][N];
      tile<R, N>({reinterpret_cast<const float*>(x.data), x.stride / int64_t{sizeof(float)},
                  block.weights, panel_values, block.steps},
                 first, totals);
      for (int r = 0; r < R; ++r) {
        alignas(64) float sums[N * kLanes];
        for (int v = 0; v < N; ++v) Vec::store(sums + v * kLanes, totals[r][v]);
        Activations<Vec>::finish(block.epilogue, sums, block.bias ? block.bias + output : nullptr,
                                 count, block.out.from(row + r, output));
      }
    }
    if constexpr (R > 1) {
      if (row < block.rows) rows_of_vectors<(R > 4 ? R / 2 : R - 1), N>(block, first, row);
    }
  }

  static void linear(const Bf16Block& block) {
    [[maybe_unused]] const typename Vec::FlushDenormals flush;
    const int vectors = (block.outputs + kLanes - 1) / kLanes;
    int first = 0;
    if (block.rows <= Vec::kFewPairRows) {
      for (; first + 2 <= vectors; first += 2) {
        rows_of_vectors<Vec::kFewPairRows, 2>(block, first);
      }
    }
    for (; first < vectors; ++first) rows_of_vectors<Vec::kPairRows, 1>(block, first);
  }
};

}  // namespace
}  // namespace ocelli::kernels::cpu
