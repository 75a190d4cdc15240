// The sizes of a quantised matrix in panels; kernels/packing.h says what stands where.
#pragma once

#include <cstdint>

namespace ocelli::kernels {

inline constexpr int kPanelOutputs = 16;
inline constexpr int kStepInputs = 4;
inline constexpr int kStepBytes = kPanelOutputs * kStepInputs;
// Of int4, a line of as many bytes holds two steps.
inline constexpr int kInt4LineInputs = 2 * kStepInputs;

struct PanelShape {
  int outputs = 0;
  int inputs = 0;
  int group = 0;         // divides inputs
  int factor_group = 0;  // int4: inputs that share a factor, a multiple of 8; 0: int8

  // An int4 matrix has one group.
  bool is_int4() const { return factor_group > 0; }
  // Whether a row is quantised for the one as for the other.
  bool has_groups_of(const PanelShape& other) const {
    return group == other.group && factor_group == other.factor_group;
  }
  // The same matrix with a byte for each weight.
  PanelShape as_int8() const { return {outputs, inputs, group}; }
  int groups() const { return inputs / group; }
  // Lines of 64 bytes in a group.
  int steps() const { return group / kStepInputs + (group % kStepInputs != 0 ? 1 : 0); }
  int panels() const { return outputs / kPanelOutputs + (outputs % kPanelOutputs != 0 ? 1 : 0); }
  // Of one panel. Both are whole cache lines.
  int64_t panel_bytes() const {
    if (is_int4()) return int64_t{factor_lines() + lines()} * kStepBytes;
    return int64_t{groups()} * steps() * kStepBytes;
  }
  int64_t panel_scales() const { return int64_t{groups()} * kPanelOutputs; }
  // Of all panels.
  int64_t value_bytes() const { return panels() * panel_bytes(); }
  int64_t scales() const { return panels() * panel_scales(); }

  // Of int4: an output's factors, the lines of 64 bytes that a panel's take, and those that its
  // nibbles take.
  int factors() const { return inputs / factor_group + (inputs % factor_group != 0 ? 1 : 0); }
  int factor_lines() const { return (factors() + kStepInputs - 1) / kStepInputs; }
  int lines() const { return (steps() + 1) / 2; }
  // Of int4: where the nibble of input `i` of output `n` stands, in the byte's upper half where the
  // step is odd, and its factor, a signed byte.
  int64_t nibble_at(int n, int i) const {
    return n / kPanelOutputs * panel_bytes() +
           int64_t{factor_lines() + i / kInt4LineInputs} * kStepBytes +
           n % kPanelOutputs * kStepInputs + i % kStepInputs;
  }
  int64_t factor_at(int n, int i) const {
    return n / kPanelOutputs * panel_bytes() + int64_t{i / factor_group} * kPanelOutputs +
           n % kPanelOutputs;
  }

  // Of int8: where input `i` of output `n` stands among the values. Of both: where its group's
  // scale stands among the scales.
  int64_t value_at(int n, int i) const {
    const int in_group = i % group;
    const int64_t line = int64_t{i / group} * steps() + in_group / kStepInputs;
    return n / kPanelOutputs * panel_bytes() + line * kStepBytes + n % kPanelOutputs * kStepInputs +
           in_group % kStepInputs;
  }
  int64_t scale_at(int n, int g) const {
    return n / kPanelOutputs * panel_scales() + g * kPanelOutputs + n % kPanelOutputs;
  }
};

// The sizes of a bf16 matrix in panels; kernels/pair_packing.h says what stands where.
struct PairShape {
  int outputs = 0;
  int inputs = 0;

  // Lines of 64 bytes, each of two inputs of 16 outputs.
  int steps() const { return inputs / 2 + inputs % 2; }
  int panels() const { return outputs / kPanelOutputs + (outputs % kPanelOutputs != 0 ? 1 : 0); }
  // Values of a panel, and bytes of all.
  int64_t panel_values() const { return int64_t{steps()} * 2 * kPanelOutputs; }
  int64_t value_bytes() const { return panels() * panel_values() * 2; }
  // Where input `i` of output `n` stands among the values.
  int64_t value_at(int n, int i) const {
    return n / kPanelOutputs * panel_values() + int64_t{i / 2} * 2 * kPanelOutputs +
           n % kPanelOutputs * 2 + i % 2;
  }
};

}  // namespace ocelli::kernels
