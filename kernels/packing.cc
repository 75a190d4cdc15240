#include "kernels/packing.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>

#include "host/error.h"
#include "kernels/quantise.h"

namespace ocelli::kernels {
namespace {

constexpr auto kScaleBytes = static_cast<int64_t>(sizeof(float));

// A step's signed inputs of one output as unsigned ones. All bytes' top bits flip: w + 128.
constexpr uint32_t kBias = 0x80808080U;

uint32_t biased(const std::byte* values, int count) {
  uint32_t word = 0;
  if (count == kStepInputs) {
    std::memcpy(&word, values, kStepInputs);
  } else {
    std::memcpy(&word, values, count);
  }
  return word ^ kBias;
}

// Sums over the panels of all matrices of a source.
template <typename Size>
int64_t sum(const LinearSource& source, int group, Size size) {
  int64_t total = 0;
  for (const HostTensor& weight : source.weights) {
    total += size(PackedStack::shape_of(weight, group));
  }
  return total;
}

// Packs one matrix; throws Error when it holds NaN or infinity.
void pack_matrix(const HostTensor& matrix, PackedInt8& packed, host::ThreadPool& pool) {
  const int panels = packed.shape().panels();
  if (matrix.quantised()) {
    LinearSource source;
    source.weights = {matrix};
    pool.parallel_for(panels, [&](int panel, int) { packed.pack_panel(source, panel); });
    return;
  }
  std::deque<PanelScratch> scratch;
  for (int i = 0; i < pool.size(); ++i) scratch.emplace_back(packed.shape());
  std::atomic<bool> finite = true;
  pool.parallel_for(panels, [&](int panel, int thread) {
    if (!packed.pack_panel(matrix, panel, scratch[thread])) finite = false;
  });
  if (!finite) refuse_non_finite(matrix);
}

}  // namespace

PanelScratch::PanelScratch(const PanelShape& shape)
    : row(shape.inputs),
      values(static_cast<size_t>(shape.inputs) * kPanelOutputs),
      scales(static_cast<size_t>(shape.panel_scales())) {
}

PackedInt8::PackedInt8(const PanelShape& shape)
    : shape_(shape), values_(shape.value_bytes()), scales_(shape.scales() * kScaleBytes) {
}

PackedInt8::PackedInt8(const PanelShape& shape, const std::byte* values, const float* scales)
    : shape_(shape), values_(values), scales_(reinterpret_cast<const std::byte*>(scales)) {
}

void PackedInt8::pack_panel(const LinearSource& source, int panel) {
  Row rows[kPanelOutputs];
  const int first = panel * kPanelOutputs;
  const int count = std::min(kPanelOutputs, shape_.outputs - first);
  for (int n = 0; n < count; ++n) {
    int64_t row = int64_t{first} + n;
    auto matrix = source.weights.begin();
    while (row >= matrix->shape[0]) row -= matrix++->shape[0];
    rows[n] = {
        matrix->data + row * shape_.inputs,
        reinterpret_cast<const std::byte*>(matrix->scales) + row * shape_.groups() * kScaleBytes};
  }
  pack_rows(rows, count, panel);
}

bool PackedInt8::pack_panel(const HostTensor& matrix, int panel, PanelScratch& scratch) {
  Row rows[kPanelOutputs];
  const int first = panel * kPanelOutputs;
  const int count = std::min(kPanelOutputs, shape_.outputs - first);
  const int64_t row_bytes = shape_.inputs * bytes_per_element(matrix.dtype);
  for (int n = 0; n < count; ++n) {
    convert_to_f32(matrix.dtype, matrix.data + (int64_t{first} + n) * row_bytes, shape_.inputs,
                   scratch.row.data());
    int8_t* values = scratch.values.data() + int64_t{n} * shape_.inputs;
    float* scales = scratch.scales.data() + int64_t{n} * shape_.groups();
    if (!quantise_row(scratch.row.data(), shape_.inputs, shape_.group, values, scales)) {
      return false;
    }
    rows[n] = {reinterpret_cast<const std::byte*>(values),
               reinterpret_cast<const std::byte*>(scales)};
  }
  pack_rows(rows, count, panel);
  return true;
}

void PackedInt8::pack_rows(const Row* rows, int count, int panel) {
  uint8_t* target = value_data() + panel * shape_.panel_bytes();
  float* scales = scale_data() + panel * shape_.panel_scales();
  for (int g = 0; g < shape_.groups(); ++g) {
    for (int n = 0; n < kPanelOutputs; ++n, ++scales) {
      *scales = 0;
      if (n < count) std::memcpy(scales, rows[n].scales + g * kScaleBytes, kScaleBytes);
    }
    for (int k = 0; k < shape_.group; k += kStepInputs) {
      const int inputs = std::min(kStepInputs, shape_.group - k);
      for (int n = 0; n < kPanelOutputs; ++n, target += kStepInputs) {
        const int64_t input = int64_t{g} * shape_.group + k;
        const uint32_t word = n < count ? biased(rows[n].values + input, inputs) : kBias;
        std::memcpy(target, &word, sizeof word);
      }
    }
  }
}

PanelShape PackedStack::shape_of(const HostTensor& matrix, int group) {
  const int64_t inputs = matrix.elements() / matrix.shape[0];
  return {static_cast<int>(matrix.shape[0]), static_cast<int>(inputs),
          matrix.quantised() ? matrix.group : fitting_group(group, inputs)};
}

PackedStack::PackedStack(const LinearSource& source, int group, host::ThreadPool& pool)
    : values_(sum(source, group, [](const PanelShape& s) { return s.value_bytes(); })),
      scales_(sum(source, group, [](const PanelShape& s) { return s.scales() * kScaleBytes; })) {
  const std::byte* values = values_.data();
  const auto* scales = reinterpret_cast<const float*>(scales_.data());
  for (const HostTensor& weight : source.weights) {
    OCELLI_CHECK(weight.layout == Layout::kRows, "{} is in panels already", weight.name);
    const PanelShape shape = shape_of(weight, group);
    PackedInt8 packed(shape, values, scales);
    pack_matrix(weight, packed, pool);
    weights_.push_back({.name = weight.name,
                        .dtype = DType::kI8,
                        .shape = weight.shape,
                        .data = values,
                        .scales = scales,
                        .group = shape.group,
                        .layout = Layout::kPanels});
    values += shape.value_bytes();
    scales += shape.scales();
  }
}

UnpackedInt8::UnpackedInt8(const HostTensor& panels) : tensor_(panels) {
  const PanelShape shape = panels.panel_shape();
  values_.reserve(panels.elements());
  scales_.reserve(int64_t{shape.outputs} * shape.groups());
  for (int n = 0; n < shape.outputs; ++n) {
    for (int i = 0; i < shape.inputs; ++i) {
      values_.push_back(panels.data[shape.value_at(n, i)] ^ std::byte{0x80});
    }
    for (int g = 0; g < shape.groups(); ++g) {
      scales_.push_back(scale_of(panels, shape.scale_at(n, g)));
    }
  }
  tensor_.data = values_.data();
  tensor_.scales = scales_.data();
  tensor_.layout = Layout::kRows;
}

}  // namespace ocelli::kernels
