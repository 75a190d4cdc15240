// The int4 kernels, written once over an instruction set's products of nibbles; see packing.h for
// the weights. Included like int8_kernels.h, under the same rules.
#pragma once

#include <cstring>

#include "kernels/cpu/kernel_table.h"

namespace ocelli::kernels::cpu {
namespace {

// Isa has Vec and, beside its vectors of fp32, those of int32 (Int):
//   Nibbles low(const uint8_t*), high(const uint8_t*)  of a line, the part that belongs to one Int
//   Inputs broadcast(const int8_t*)                    4 inputs of a row
//   Partial dot(Partial, Nibbles, Inputs)              sums of products
//   Int factors(const uint8_t*)                        a signed byte for each output
//   Int set1(int32_t), add(Int, Int), multiply(Int, Int), Vec::V to_float(Int)
// and kPanels, the panels that are worth doing at once. A Partial is an Int, unless there is a
// kChunk, the most lines whose products fit one, and Int widen(Partial). Finish is Activations or a
// class like it.
template <typename Isa, typename Finish>
struct Int4Kernels {
  using Vec = typename Isa::Vec;
  using V = typename Vec::V;
  using Int = typename Isa::Int;
  using Partial = typename Isa::Partial;
  static constexpr int kPanel = 16;  // outputs
  static constexpr int kLine = 64;   // bytes
  static constexpr int kInputs = 8;  // of a line
  static constexpr int kLanes = Vec::kLanes;
  static constexpr int kParts = kPanel / kLanes;
  static constexpr int kTileRows = Isa::kRows;
  // So few rows wait for weights. What is fetched this far ahead comes in time, also where a page
  // ends and the processor's own guesses do.
  static constexpr int kFewRows = 2;
  static constexpr int kAhead = 2048;

  // Where panels and rows stand.
  struct Operands {
    const uint8_t* panel;
    int64_t panel_bytes;
    const int8_t* x;
    int64_t x_stride;
  };

  // sums += the products of the lines [first, end) of a panel.
  template <int R, int P>
  [[gnu::always_inline]] static inline void multiply(const Operands& o, int first, int end,
                                                     Partial (&sums)[R][P][kParts]) {
    for (int line = first; line < end; ++line) {
      typename Isa::Inputs even[R];
      typename Isa::Inputs odd[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const int8_t* x = o.x + r * o.x_stride + int64_t{line} * kInputs;
        even[r] = Isa::broadcast(x);
        odd[r] = Isa::broadcast(x + kInputs / 2);
      }
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
        const uint8_t* bytes = o.panel + p * o.panel_bytes + int64_t{line} * kLine;
        if (R <= kFewRows) __builtin_prefetch(bytes + kAhead);
#pragma GCC unroll 4
        for (int part = 0; part < kParts; ++part) {
          const auto low = Isa::low(bytes + part * kLanes * 4);
          const auto high = Isa::high(bytes + part * kLanes * 4);
#pragma GCC unroll 4
          for (int r = 0; r < R; ++r) sums[r][p][part] = Isa::dot(sums[r][p][part], low, even[r]);
#pragma GCC unroll 4
          for (int r = 0; r < R; ++r) sums[r][p][part] = Isa::dot(sums[r][p][part], high, odd[r]);
        }
      }
    }
  }

  // acc += the products of the lines [first, end) of a panel.
  template <int R, int P>
  [[gnu::always_inline]] static inline void add_lines(const Operands& o, int first, int end,
                                                      Int (&acc)[R][P][kParts]) {
    if constexpr (requires { Isa::kChunk; }) {
      for (int line = first; line < end; line += Isa::kChunk) {
        Partial sums[R][P][kParts] = {};
        multiply<R, P>(o, line, end - line < Isa::kChunk ? end : line + Isa::kChunk, sums);
        for (int r = 0; r < R; ++r) {
          for (int p = 0; p < P; ++p) {
            for (int part = 0; part < kParts; ++part) {
              acc[r][p][part] = Isa::add(acc[r][p][part], Isa::widen(sums[r][p][part]));
            }
          }
        }
      }
    } else {
      multiply<R, P>(o, first, end, acc);
    }
  }

  // R rows and P panels, `out` of which gets their outputs one row after the other.
  template <int R, int P>
  static void tile(const Int8Block& block, int first_row, int first_panel, float* out) {
    const QuantisedRows x = block.x.from(first_row);
    const Int4Lines lines = {block.steps, block.factor_lines};
    const int64_t panel_bytes = lines.panel_bytes();
    const uint8_t* panel = block.values + first_panel * panel_bytes;
    const Operands operands = {panel + int64_t{lines.of_factors()} * kLine, panel_bytes, x.values,
                               x.stride};
    Int totals[R][P][kParts] = {};
    const int all = lines.of_nibbles();
    for (int g = 0, line = 0; line < all; ++g) {
      const int end = all - line < block.factor_lines ? all : line + block.factor_lines;
      Int acc[R][P][kParts];
      for (int r = 0; r < R; ++r) {
        const Int zero_points = Isa::set1(-8 * x.sums[r * x.sum_groups + g]);
        for (auto& panels : acc[r]) {
          for (Int& part : panels) part = zero_points;
        }
      }
      add_lines<R, P>(operands, line, end, acc);
      line = end;
      for (int p = 0; p < P; ++p) {
        for (int part = 0; part < kParts; ++part) {
          const Int factors =
              Isa::factors(panel + p * panel_bytes + int64_t{g} * kPanel + part * kLanes);
          for (int r = 0; r < R; ++r) {
            totals[r][p][part] =
                Isa::add(totals[r][p][part], Isa::multiply(acc[r][p][part], factors));
          }
        }
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int p = 0; p < P; ++p) {
        for (int part = 0; part < kParts; ++part) {
          const V ws = Vec::load(block.scales + (first_panel + p) * kPanel + part * kLanes);
          const V scaled = Isa::to_float(totals[r][p][part]) * ws * Vec::set1(x.scales[r]);
          Vec::store(out + (r * P + p) * kPanel + part * kLanes, Vec::zero() + scaled);
        }
      }
    }
  }

  struct Span {
    int first;
    int count;
  };
  // tile() for a number of rows up to R.
  template <int R, int P>
  static void some_rows(const Int8Block& block, Span rows, int panel, float* out) {
    if (rows.count == R) {
      tile<R, P>(block, rows.first, panel, out);
    } else if constexpr (R > 1) {
      some_rows<R - 1, P>(block, rows, panel, out);
    }
  }

  template <int P>
  static void panels(const Int8Block& block, int panel) {
    alignas(64) float sums[kTileRows * P * kPanel];
    constexpr int kStride = P * kPanel;
    const int first = panel * kPanel;
    const int count = block.outputs - first < kStride ? block.outputs - first : kStride;
    for (int row = 0; row < block.rows;) {
      const int rows = block.rows - row < kTileRows ? block.rows - row : kTileRows;
      some_rows<kTileRows, P>(block, {row, rows}, panel, sums);
      for (int r = 0; r < rows; ++r) {
        Finish::finish(block.epilogue, sums + r * kStride,
                       block.bias ? block.bias + first : nullptr, count,
                       block.out.from(row + r, first));
      }
      row += rows;
    }
  }

  static void linear(const Int8Block& block) {
    const int count = (block.outputs + kPanel - 1) / kPanel;
    int panel = 0;
    for (; panel + Isa::kPanels <= count; panel += Isa::kPanels) {
      panels<Isa::kPanels>(block, panel);
    }
    for (; panel < count; ++panel) panels<1>(block, panel);
  }

  // Bytes of a line, in the compiler's own vectors, whose multiplication of words wraps.
  typedef uint32_t Words __attribute__((vector_size(kLanes * 4)));
  typedef uint16_t Halves __attribute__((vector_size(kLanes * 4)));

  static Words load_words(const uint8_t* p) {
    Words words;
    std::memcpy(&words, p, sizeof words);
    return words;
  }

  // What turns the nibbles of one group into int8 + 128. For a factor below 0, factor · (n − 8) is
  // |factor| · ((15 − n) − 7): with its bits flipped, a nibble is multiplied by a positive factor,
  // and a byte's product, at most 225, never reaches the byte beside it.
  struct Expansion {
    Words flips;
    Words factors;  // |factor| in both halves of a word
    Words offsets;  // in every byte

    static Expansion of(const uint8_t* bytes) {
      uint32_t words[3][kLanes];
      for (int i = 0; i < kLanes; ++i) {
        const int factor = int{static_cast<int8_t>(bytes[i])};
        const auto size = static_cast<uint32_t>(factor < 0 ? -factor : factor);
        words[0][i] = factor < 0 ? 0x0F0F0F0FU : 0;
        words[1][i] = size * 0x00010001U;
        words[2][i] = ((128 - size * (factor < 0 ? 7 : 8)) & 255) * 0x01010101U;
      }
      Expansion result;
      std::memcpy(&result.flips, words[0], sizeof result.flips);
      std::memcpy(&result.factors, words[1], sizeof result.factors);
      std::memcpy(&result.offsets, words[2], sizeof result.offsets);
      return result;
    }
    [[gnu::always_inline]] inline void store(Words nibbles, uint8_t* out) const {
      const Words products = (Words)((Halves)(nibbles ^ flips) * (Halves)factors);
      const Words values = products + offsets;
      std::memcpy(out, &values, sizeof values);
    }
  };

  // One panel to `steps` lines of int8 as packing.h describes them.
  static void expand(const uint8_t* panel, int steps, int factor_lines, uint8_t* out) {
    const Int4Lines lines = {steps, factor_lines};
    const uint8_t* nibbles = panel + int64_t{lines.of_factors()} * kLine;
    for (int part = 0; part < kParts; ++part) {
      const int at = part * kLanes * 4;
      for (int line = 0, g = 0; line < lines.of_nibbles(); ++g) {
        const Expansion group = Expansion::of(panel + int64_t{g} * kPanel + part * kLanes);
        const int all = lines.of_nibbles();
        const int end = all - line < factor_lines ? all : line + factor_lines;
        for (; line < end; ++line) {
          const Words both = load_words(nibbles + int64_t{line} * kLine + at);
          group.store(both & 0x0F0F0F0FU, out + int64_t{2} * line * kLine + at);
          if (2 * line + 1 == steps) break;
          group.store((both >> 4) & 0x0F0F0F0FU, out + (int64_t{2} * line + 1) * kLine + at);
        }
        line = end;
      }
    }
  }
};

}  // namespace
}  // namespace ocelli::kernels::cpu
