// The sizes of a quantised matrix in panels; kernels/packing.h says what stands where.
#pragma once

#include <cstdint>

namespace ocelli::kernels {

inline constexpr int kPanelOutputs = 16;
inline constexpr int kStepInputs = 4;
inline constexpr int kStepBytes = kPanelOutputs * kStepInputs;

struct PanelShape {
  int outputs = 0;
  int inputs = 0;
  int group = 0;  // divides inputs

  int groups() const { return inputs / group; }
  // Lines of 64 bytes in a group.
  int steps() const { return group / kStepInputs + (group % kStepInputs != 0 ? 1 : 0); }
  int panels() const { return outputs / kPanelOutputs + (outputs % kPanelOutputs != 0 ? 1 : 0); }
  // Of one panel. Both are whole cache lines.
  int64_t panel_bytes() const { return int64_t{groups()} * steps() * kStepBytes; }
  int64_t panel_scales() const { return int64_t{groups()} * kPanelOutputs; }
  // Of all panels.
  int64_t value_bytes() const { return panels() * panel_bytes(); }
  int64_t scales() const { return panels() * panel_scales(); }

  // Where input `i` of output `n` stands among the values, and its group's scale among the scales.
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
