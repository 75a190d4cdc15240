// What operations work on: element types, tensors in a checkpoint, tensors in a backend's memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/panel_shape.h"

namespace ocelli::kernels {

enum class DType : uint8_t { kF32, kF16, kBF16, kI8, kU8, kI32, kI64 };

constexpr int64_t bytes_per_element(DType dtype) {
  switch (dtype) {
    case DType::kI64:
      return 8;
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kF16:
    case DType::kBF16:
      return 2;
    case DType::kI8:
    case DType::kU8:
      return 1;
  }
  return 0;
}

// The dtype as messages write it: "f32", "bf16", …
const char* name(DType dtype);

// A tensor as a checkpoint holds it: row-major, in host memory that the checkpoint owns (mapped
// files stay mapped for the checkpoint's life).
//
// A quantised tensor is of kI8 and has one scale for every `group` values of a row (of
// shape[1] · shape[2] · … values): value i stands for data[i] · scales[i / group], where it is in
// rows. In panels its values and scales stand as kernels/packing.h says; shape is the same. With a
// factor_group the panels are of int4: what stands for an int8 value is a product then, and `group`
// is the row. A matrix of kBF16 may be in panels as well, those of kernels/pair_packing.h.
enum class Layout : uint8_t { kRows, kPanels };

struct HostTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  const float* scales = nullptr;
  int group = 0;
  Layout layout = Layout::kRows;
  int factor_group = 0;

  bool quantised() const { return scales != nullptr; }
  int64_t elements() const;
  // Of the values as they are stored, without the scales.
  int64_t bytes() const;
  // Of a quantised tensor: scales as they are stored.
  int64_t scale_count() const;
  // Of a quantised tensor: as a matrix of shape[0] outputs.
  PanelShape panel_shape() const;
  // Whether it is of bf16 in panels, and then: as a matrix of shape[0] outputs.
  bool in_pairs() const { return layout == Layout::kPanels && dtype == DType::kBF16; }
  PairShape pair_shape() const;
};

// "[2560, 10240]"
std::string shape_text(const std::vector<int64_t>& shape);

// Any dtype to fp32, element by element: source has `elements` of `dtype`.
void convert_to_f32(DType dtype, const std::byte* source, int64_t elements, float* out);

// All of a tensor to fp32: value · scale where it is quantised.
void convert_to_f32(const HostTensor& source, float* out);

// The int8 value that stands for input `input` of output `output` of a matrix in panels.
int panel_value(const HostTensor& panels, const PanelShape& shape, int output, int input);

// Scale `index` of a quantised tensor, as they are stored. A file promises no alignment, so it is
// copied out.
float scale_of(const HostTensor& source, int64_t index);

// IEEE half precision and bfloat16, without instruction-set help; rounding is to nearest, even.
float f16_to_f32(uint16_t value);
uint16_t f32_to_f16(float value);
float bf16_to_f32(uint16_t value);
uint16_t f32_to_bf16(float value);

// Memory that a backend allocated. Only the backend that made it looks inside.
class Storage {
 public:
  virtual ~Storage() = default;
};

// A matrix [rows, cols] in a backend's memory: a view, cheap to slice, that keeps its storage
// alive. Element (r, c) stands at offset + r * stride + c, counted in elements. Stride 0 repeats
// one row.
struct Tensor {
  std::shared_ptr<Storage> storage;
  DType dtype = DType::kF32;
  int rows = 0;
  int cols = 0;
  int64_t stride = 0;
  int64_t offset = 0;

  // Rows [first, first + count).
  Tensor row_range(int first, int count) const;
  // Columns [first, first + count).
  Tensor column_range(int first, int count) const;
};

}  // namespace ocelli::kernels
