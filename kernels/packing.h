// Quantised weight matrices in the one layout that AVX2, AVX-512 VNNI and AMX all read in order.
//
// A matrix W [outputs, inputs] of int8 in groups of `group` inputs becomes two blocks of bytes.
//
// Values, one unsigned byte w + 128 a weight, in panels of 16 outputs:
//
//   [panel][group][step][16 outputs][4 inputs]
//
//   panel  outputs 16 · panel … + 15; ceil(outputs / 16) of them. Outputs past the last are 128.
//   step   inputs 4 · step … + 3 of the group; ceil(group / 4) of them. Inputs past the group's end
//          are 128, which stands for 0.
//
// So a step is a line of 64 bytes, in which byte 4 · n + i is input i of output n: one operand of
// AVX-512's VPDPBUSD, two of AVX2's, one row of an AMX tile (16 steps of a group whose length is a
// multiple of 64). A panel is groups · steps · 64 bytes, and panels follow one another.
// Unsigned, because those instructions multiply an unsigned by a signed operand, and the
// activations are the signed one: Σ xq · wq = Σ xq · (wq + 128) − 128 · Σ xq.
//
// Scales, fp32: [panel][group][16 outputs]; those of outputs past the last are 0.
//
// Both blocks start on a cache line. Numbers are little-endian.
#pragma once

#include <cstdint>

#include "kernels/host_storage.h"
#include "kernels/ops.h"

namespace ocelli::kernels {

inline constexpr int kPanelOutputs = 16;
inline constexpr int kStepInputs = 4;
inline constexpr int kStepBytes = kPanelOutputs * kStepInputs;

class PackedInt8 {
 public:
  // Makes room for the stacked matrices of `source`, which are quantised and have `outputs` rows
  // together; pack_panel fills it. Throws host::Error when memory is short.
  PackedInt8(const LinearSource& source, int outputs);

  // Packs panel `panel` of the `source` that the constructor was given.
  void pack_panel(const LinearSource& source, int panel);

  int panels() const { return panels_; }
  int group() const { return group_; }
  int groups() const { return groups_; }
  // Lines of 64 bytes in a group.
  int steps() const { return steps_; }
  int64_t panel_bytes() const { return int64_t{groups_} * steps_ * kStepBytes; }

  const uint8_t* values(int panel) const { return value_data() + panel * panel_bytes(); }
  const float* scales(int panel) const {
    return scale_data() + int64_t{panel} * groups_ * kPanelOutputs;
  }

 private:
  uint8_t* value_data() const { return reinterpret_cast<uint8_t*>(values_.data()); }
  float* scale_data() const { return reinterpret_cast<float*>(scales_.data()); }

  int outputs_;
  int group_;
  int groups_;
  int steps_;
  int panels_;
  HostStorage values_;
  HostStorage scales_;
};

}  // namespace ocelli::kernels
