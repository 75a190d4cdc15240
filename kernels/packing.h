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
// int4: the same values, with one group a row, as products of an integer factor, −15 … 15, that
// `factor_group` inputs of an output share (the last of a row perhaps fewer) and a nibble less 8:
//
//   [panel] { [factor group][16 outputs] factors, a signed byte each; zeros up to a cache line;
//             [line][16 outputs][4 inputs] nibbles }
//
//   line   two steps: the lower half of byte 4 · n + i is input i of the first, the upper half of
//          the second; ceil(inputs / 8) lines. Inputs past a row's end and outputs past the last
//          are 8, and their factors are 0 where a whole output is none.
//
// Both blocks start on a cache line. Numbers are little-endian. docs/weight-format.md describes the
// file that holds them.
#pragma once

#include <cstdint>
#include <vector>

#include "host/thread_pool.h"
#include "kernels/host_storage.h"
#include "kernels/ops.h"
#include "kernels/panel_shape.h"

namespace ocelli::kernels {

// What floats become: int8 in groups as fitting_group(group) says, or, with a factor_group, int4.
struct PanelFormat {
  int group = 0;
  int factor_group = 0;  // one of kFactorGroups
};
inline constexpr int kFactorGroups[] = {32, 64, 128};

// What packing a panel of floats works in; one a thread.
struct PanelScratch {
  explicit PanelScratch(const PanelShape& shape);
  std::vector<float> row;
  std::vector<int8_t> values;   // [16, inputs]
  std::vector<float> scales;    // [16, groups]
  std::vector<int8_t> factors;  // int4: [16, factors]
};

class PackedInt8 {
 public:
  // Makes room for a matrix; pack_panel fills it. Throws host::Error when memory is short.
  explicit PackedInt8(const PanelShape& shape);
  // A matrix where it stands, in memory that outlives this.
  PackedInt8(const PanelShape& shape, const std::byte* values, const float* scales);

  // Packs panel `panel` of the stacked quantised matrices of `source`, which are in rows and have
  // the shape together.
  void pack_panel(const LinearSource& source, int panel);
  // The same of one matrix of floats, which becomes int8 by quantise_row or int4 by
  // quantise_int4_row; false when one is NaN or infinite.
  bool pack_panel(const HostTensor& matrix, int panel, PanelScratch& scratch);

  const PanelShape& shape() const { return shape_; }
  const uint8_t* values(int panel) const { return value_data() + panel * shape_.panel_bytes(); }
  const float* scales(int panel) const { return scale_data() + panel * shape_.panel_scales(); }

 private:
  // The values of one row, and its scales one after the other at any alignment.
  struct Row {
    const std::byte* values;
    const std::byte* scales;
  };

  void pack_rows(const Row* rows, int count, int panel);
  void pack_int4_rows(const PanelScratch& rows, int count, int panel);
  uint8_t* value_data() const { return reinterpret_cast<uint8_t*>(values_.data()); }
  float* scale_data() const { return reinterpret_cast<float*>(scales_.data()); }

  PanelShape shape_;
  HostStorage values_;
  HostStorage scales_;
};

// The matrices of a LinearSource in panels, each in its own, one behind the other: where all but
// the last have a multiple of 16 outputs they are one matrix as well.
class PackedStack {
 public:
  // Quantises floats; matrices that are quantised already keep their values and groups, in int8.
  // Throws host::Error when a float is NaN or infinite, or memory is short.
  PackedStack(const LinearSource& source, const PanelFormat& format, host::ThreadPool& pool);

  // The matrices, which refer to this object's memory.
  const std::vector<HostTensor>& weights() const { return weights_; }
  // The panels that such a matrix gets.
  static PanelShape shape_of(const HostTensor& matrix, const PanelFormat& format);

 private:
  HostStorage values_;
  HostStorage scales_;
  std::vector<HostTensor> weights_;
};

// A matrix in panels turned back into rows of int8.
class UnpackedInt8 {
 public:
  explicit UnpackedInt8(const HostTensor& panels);
  // Refers to this object's memory.
  const HostTensor& tensor() const { return tensor_; }

 private:
  std::vector<std::byte> values_;
  std::vector<float> scales_;
  HostTensor tensor_;
};

}  // namespace ocelli::kernels
