// The int8 kernels, written once over an instruction set's dot product; see packing.h for the
// weights and Ops::linear for the arithmetic.
//
// Included like kernels.h, and under the same rule of linkage; but the files that include this are
// compiled without contraction, as no product here may be fused with a sum.
#pragma once

#include <cmath>
#include <cstring>

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
// and kPanels, the panels that are worth doing at once, a power of two. Finish is Activations or a
// class like it.
template <typename Isa, typename Finish>
struct Int8Kernels {
  using Vec = typename Isa::Vec;
  using V = typename Vec::V;
  using Int = typename Isa::Int;
  static constexpr int kLanes = Vec::kLanes;
  static constexpr int kParts = kPanel / kLanes;
  static constexpr int kTileRows = 4;

  // A group's scale: the largest magnitude / 127, or NaN where a value is not finite.
  static float group_scale(const float* x, int n) {
    V largest = Vec::zero();
    V poison = Vec::zero();  // ±0, or NaN after a value that is not finite
    for (int i = 0; i < n; i += kLanes) {
      const V v = Vec::load_partial(x + i, n - i < kLanes ? n - i : kLanes);
      largest = Vec::maximum(largest, Vec::magnitude(v));
      poison = poison + v * Vec::zero();
    }
    return Vec::reduce_max(largest) / 127.0F + Vec::reduce_add(poison);
  }

  // x / scale rounded to nearest, halves away from zero. A product with the inverse is off by less
  // than 1e-4, which matters only near halves: there, seldom, it is divided.
  static V rounded_quotient(V x, V scale, V inverse) {
    const V product = x * inverse;
    const V nearest = Vec::round(product);
    if (!Vec::any_above(Vec::magnitude(product - nearest), 0.4999F)) return nearest;
    return Vec::round_away(Vec::at_most(Vec::at_least(x / scale, -127), 127));
  }

  static void quantise_row(const float* x, int n, int group, const QuantisedRows& out) {
    // Where a scale is smaller its inverse is large, or infinite.
    constexpr float kSmallScale = 1e-30F;
    const int unit = out.tiles ? QuantisedRows::kLine : kStep;
    const int padded = (group + unit - 1) / unit * unit;
    int64_t first = 0;
    for (int g = 0; g * group < n; ++g, x += group, first += padded) {
      const float scale = group_scale(x, group);
      const bool zeros = !(scale > 0);
      const V divisor = Vec::set1(zeros ? 1.0F : scale);
      const V inverse = Vec::set1(scale > kSmallScale ? 1.0F / scale : NAN);
      V sums = Vec::zero();  // of integers whose sum stays below 2^24: exact
      for (int i = 0; i < group; i += kLanes) {
        const int count = group - i < kLanes ? group - i : kLanes;
        const V values = zeros ? Vec::zero() : Vec::load_partial(x + i, count);
        const V rounded = rounded_quotient(values, divisor, inverse);
        Vec::store_int8(out.at(first + i), rounded, count);
        sums = sums + rounded;
      }
      std::memset(out.at(first + group - 1) + 1, 0, padded - group);
      out.scales[g] = scale;
      out.corrections[g] = -128 * static_cast<int32_t>(Vec::reduce_add(sums));
    }
  }

  // R rows and P panels: sums[r · stride + n], n counted from the first panel.
  template <int R, int P>
  static void tile(const Int8Block& block, int first_row, int first_panel, float* sums,
                   int stride) {
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
      multiply<R, P>(x.values + int64_t{g} * block.steps * kStep, x.stride,
                     weights + int64_t{g} * block.steps * kLine, panel_bytes, block.steps, acc);
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
#pragma GCC unroll 4
        for (int part = 0; part < kParts; ++part) {
          const V ws = Vec::load(scales + (int64_t{p} * x.groups + g) * kPanel + part * kLanes);
#pragma GCC unroll 4
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
          Vec::store(sums + r * stride + p * kPanel + part * kLanes, totals[r][p][part]);
        }
      }
    }
  }

  // acc += the integer products of one group.
  template <int R, int P>
  [[gnu::always_inline]] static inline void multiply(const int8_t* x, int64_t x_stride,
                                                     const uint8_t* weights, int64_t panel_bytes,
                                                     int steps, Int (&acc)[R][P][kParts]) {
    for (int s = 0; s < steps; ++s) {
      typename Isa::Inputs inputs[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) inputs[r] = Isa::broadcast(x + r * x_stride + s * kStep);
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
        const uint8_t* line = weights + p * panel_bytes + int64_t{s} * kLine;
#pragma GCC unroll 4
        for (int part = 0; part < kParts; ++part) {
          const auto w = Isa::load(line + part * kLanes * kStep);
#pragma GCC unroll 4
          for (int r = 0; r < R; ++r) {
            acc[r][p][part] = Isa::dot(acc[r][p][part], w, inputs[r]);
          }
        }
      }
    }
  }

  template <int P>
  static void rows_of_panels(const Int8Block& block, int panel) {
    alignas(64) float sums[kTileRows * P * kPanel];
    constexpr int kStride = P * kPanel;
    const int first = panel * kPanel;
    const int count = block.outputs - first < kStride ? block.outputs - first : kStride;
    for (int row = 0; row < block.rows; row += kTileRows) {
      const int rows = block.rows - row < kTileRows ? block.rows - row : kTileRows;
      if (rows == 1) {
        tile<1, P>(block, row, panel, sums, kStride);
      } else if (rows == 2) {
        tile<2, P>(block, row, panel, sums, kStride);
      } else if (rows == 3) {
        tile<3, P>(block, row, panel, sums, kStride);
      } else {
        tile<4, P>(block, row, panel, sums, kStride);
      }
      for (int r = 0; r < rows; ++r) {
        Finish::finish(block.epilogue, sums + r * kStride,
                       block.bias ? block.bias + first : nullptr, count,
                       block.out.f32(row + r) + first);
      }
    }
  }

  static void linear(const Int8Block& block) {
    const int panels = (block.outputs + kPanel - 1) / kPanel;
    int panel = 0;
    for (; panel + Isa::kPanels <= panels; panel += Isa::kPanels) {
      rows_of_panels<Isa::kPanels>(block, panel);
    }
    if constexpr (Isa::kPanels > 2) {
      for (; panel + 2 <= panels; panel += 2) rows_of_panels<2>(block, panel);
    }
    for (; panel < panels; ++panel) rows_of_panels<1>(block, panel);
  }
};

}  // namespace
}  // namespace ocelli::kernels::cpu
