// The int8 kernels, written once over an instruction set's dot product; see packing.h for the
// weights and Ops::linear for the arithmetic.
//
// Included like kernels.h, and under the same rule of linkage; but the files that include this are
// compiled without contraction, as no product here may be fused with a sum.
#pragma once

#include <cmath>

#include "kernels/cpu/isa/half.h"
#include "kernels/cpu/isa/quantise.h"
#include "kernels/cpu/kernel_table.h"

namespace ocelli::kernels::cpu {
namespace {

constexpr int kPanel = 16;         // outputs
constexpr int kStep = 4;           // inputs
constexpr int kLine = kPanel * 4;  // bytes

// Isa has the vectors of fp32 (Vec) and of int32 (Int), and of a line of weights the part that
// belongs to one Int:
//   Weights load(const uint8_t*)      4 inputs of each of the Int's outputs, unsigned
//   Inputs broadcast(const int8_t*)   4 inputs of a row, signed
//   Int dot(Int sums, Weights, Inputs)
//   Int set1(int32_t), Vec::V to_float(Int)
// and how many panels, a power of two, and rows are worth doing at once, so that the sums fit the
// registers: kPanels for up to 4 rows; for more rows kManyPanels and kManyRows, 12, 6 or 4. Finish
// is Activations or a class like it.
template <typename Isa, typename Finish>
struct Int8Kernels {
  using Vec = typename Isa::Vec;
  using V = typename Vec::V;
  using Int = typename Isa::Int;
  static constexpr int kLanes = Vec::kLanes;
  static constexpr int kParts = kPanel / kLanes;
  static constexpr int kFewRows = 4;
  // So few rows wait for their weights, which the processor fetches best unasked.
  enum class Batch { kFew, kMany };

  static void quantise_row(const InputRow& x, int group, const QuantisedRows& out) {
    if (x.dtype == DType::kBF16) {
      quantise_groups<Brain>(x, group, out);
    } else {
      quantise_groups<float>(x, group, out);
    }
  }

  template <typename T>
  static void quantise_groups(const InputRow& row, int group, const QuantisedRows& out) {
    const int unit = out.tiles ? QuantisedRows::kLine : kStep;
    const int padded = (group + unit - 1) / unit * unit;
    const T* x = reinterpret_cast<const T*>(row.values);
    const T* next = reinterpret_cast<const T*>(row.next);
    int64_t first = 0;
    for (int g = 0; g * group < row.count; ++g, x += group, next += group, first += padded) {
      const float scale = Quantiser<Vec>::scale(x, group);
      out.scales[g] = scale;
      out.corrections[g] = 0;
      if (scale > 0) {
        const int32_t sum = Quantiser<Vec>::values(
            x, group, scale, [&](int i) { return out.at(first + i); },
            [&](int i) { __builtin_prefetch(next + i, 0, 2); });
        out.corrections[g] = -128 * sum;
      } else {
        for (int i = 0; i < group; ++i) *out.at(first + i) = 0;
      }
      for (int i = group; i < padded; ++i) *out.at(first + i) = 0;
    }
  }

  // Panels that are wanted later: of each a stretch of `rate` bytes is brought into L2 at every
  // step of a multiplication. Beyond the last nothing is wanted, and a byte or two do no harm.
  struct Ahead {
    const uint8_t* next = nullptr;
    int64_t panel_bytes = 0;
    int rate = 0;

    template <int P>
    [[gnu::always_inline]] inline void fetch() {
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) __builtin_prefetch(next + p * panel_bytes, 0, 2);
      next += rate;
    }
  };

  // R rows and P panels: sums[r · P · kPanel + n], n counted from the first panel.
  template <Batch kBatch, int R, int P>
  static void tile(const Int8Block& block, int first_row, int first_panel, Ahead& ahead,
                   float* sums) {
    const QuantisedRows x = block.x.from(first_row);
    const int64_t panel_bytes = int64_t{x.groups} * block.steps * kLine;
    const uint8_t* weights = block.values + first_panel * panel_bytes;
    const float* scales = block.scales + int64_t{first_panel} * x.groups * kPanel;
    V totals[R][P][kParts];
    for (auto& row : totals) {
      for (auto& panel : row) {
        for (V& total : panel) total = Vec::zero();
      }
    }
    for (int g = 0; g < x.groups; ++g) {
      Int acc[R][P][kParts];
      for (int r = 0; r < R; ++r) {
        for (auto& panel : acc[r]) {
          for (Int& part : panel) part = Isa::set1(x.corrections[r * x.groups + g]);
        }
      }
      const Operands operands = {x.values + int64_t{g} * block.steps * kStep, x.stride,
                                 weights + int64_t{g} * block.steps * kLine, panel_bytes,
                                 block.steps};
      multiply<kBatch, R, P>(operands, ahead, acc);
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) {
#pragma GCC unroll 16
        for (int part = 0; part < kParts; ++part) {
          const V ws = Vec::load(scales + (int64_t{p} * x.groups + g) * kPanel + part * kLanes);
#pragma GCC unroll 16
          for (int r = 0; r < R; ++r) {
            const V scaled = Isa::to_float(acc[r][p][part]) * ws;
            totals[r][p][part] =
                totals[r][p][part] + scaled * Vec::set1(x.scales[r * x.groups + g]);
          }
        }
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int p = 0; p < P; ++p) {
        for (int part = 0; part < kParts; ++part) {
          Vec::store(sums + (r * P + p) * kPanel + part * kLanes, totals[r][p][part]);
        }
      }
    }
  }

  // Rows and weights of one group.
  struct Operands {
    const int8_t* x;
    int64_t x_stride;
    const uint8_t* weights;
    int64_t panel_bytes;
    int steps;
  };

  // acc += the integer products of one group.
  template <Batch kBatch, int R, int P>
  [[gnu::always_inline]] static inline void multiply(const Operands& o, Ahead& ahead,
                                                     Int (&acc)[R][P][kParts]) {
    constexpr int kThird = 3;  // rows that share an address register, and the stride another
    const int8_t* at[(R + kThird - 1) / kThird];
#pragma GCC unroll 16
    for (int r = 0; r < R; r += kThird) {
      at[r / kThird] = o.x + r * o.x_stride;
      asm("" : "+r"(at[r / kThird]));  // else the compiler takes a register for each row
    }
    Ahead here = ahead;
    for (int s = 0; s < o.steps; ++s) {
      if (kBatch == Batch::kMany) here.template fetch<P>();
      typename Isa::Weights w[P][kParts];
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) {
        const uint8_t* line = o.weights + p * o.panel_bytes + int64_t{s} * kLine;
#pragma GCC unroll 16
        for (int part = 0; part < kParts; ++part) {
          w[p][part] = Isa::load(line + part * kLanes * kStep);
        }
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const auto inputs = Isa::broadcast(at[r / kThird] + r % kThird * o.x_stride + s * kStep);
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) {
#pragma GCC unroll 16
          for (int part = 0; part < kParts; ++part) {
            acc[r][p][part] = Isa::dot(acc[r][p][part], w[p][part], inputs);
          }
        }
      }
    }
    ahead = here;
  }

  // Sizes of the blocks that rows are taken in, from the largest on.
  static constexpr int smaller(int rows) {
    return rows > 8 ? 8 : rows > 4 ? 4 : rows - 1;
  }

  // How many blocks so many rows are taken in.
  template <int R>
  static int blocks_of(int rows) {
    if constexpr (R == 1) {
      return rows;
    } else {
      return rows / R + blocks_of<smaller(R)>(rows % R);
    }
  }

  // The rows from `row` on of P panels, in blocks of at most R.
  template <Batch kBatch, int R, int P>
  static void rows_of_panels(const Int8Block& block, int panel, Ahead ahead, int row = 0) {
    alignas(64) float sums[R * P * kPanel];
    constexpr int kStride = P * kPanel;
    const int first = panel * kPanel;
    const int count = block.outputs - first < kStride ? block.outputs - first : kStride;
    for (; row + R <= block.rows; row += R) {
      tile<kBatch, R, P>(block, row, panel, ahead, sums);
      for (int r = 0; r < R; ++r) {
        Finish::finish(block.epilogue, sums + r * kStride,
                       block.bias ? block.bias + first : nullptr, count,
                       block.out.from(row + r, first));
      }
    }
    if constexpr (R > 1) {
      if (row < block.rows) rows_of_panels<kBatch, smaller(R), P>(block, panel, ahead, row);
    }
  }

  // What to fetch while the rows meet the P panels from `panel` on: those that come next.
  template <int R, int P>
  static Ahead after(const Int8Block& block, int panel) {
    const int panels = (block.outputs + kPanel - 1) / kPanel;
    const int64_t panel_bytes = int64_t{block.x.groups} * block.steps * kLine;
    const bool last = panel + P >= panels;
    if (last && !block.next) return {block.values, 0, 0};
    const int blocks = blocks_of<R>(block.rows);
    return {last ? block.next : block.values + (int64_t{panel} + P) * panel_bytes, panel_bytes,
            (kLine + blocks - 1) / blocks};
  }

  // All rows, in blocks of at most R, of panels from `panel` on, as many at once as P says.
  template <Batch kBatch, int R, int P>
  static void panels_from(const Int8Block& block, int panel) {
    const int panels = (block.outputs + kPanel - 1) / kPanel;
    for (; panel + P <= panels; panel += P) {
      rows_of_panels<kBatch, R, P>(block, panel, after<R, P>(block, panel));
    }
    if constexpr (P > 1) {
      if (panel < panels) panels_from<kBatch, R, P / 2>(block, panel);
    }
  }

  static void linear(const Int8Block& block) {
    if (block.rows > kFewRows) {
      panels_from<Batch::kMany, Isa::kManyRows, Isa::kManyPanels>(block, 0);
    } else {
      panels_from<Batch::kFew, kFewRows, Isa::kPanels>(block, 0);
    }
  }
};

}  // namespace
}  // namespace ocelli::kernels::cpu
