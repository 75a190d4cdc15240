#include "kernels/packing.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>

#include "host/error.h"
#include "kernels/quantise.h"
#include "kernels/quantise_int4.h"

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
int64_t sum(const LinearSource& source, const PanelFormat& format, Size size) {
  int64_t total = 0;
  for (const HostTensor& weight : source.weights) {
    total += size(PackedStack::shape_of(weight, format));
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
      scales(static_cast<size_t>(shape.panel_scales())),
      factors(shape.is_int4() ? static_cast<size_t>(shape.factors()) * kPanelOutputs : 0) {
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
    if (shape_.is_int4()) {
      int8_t* factors = scratch.factors.data() + int64_t{n} * shape_.factors();
      const Int4Row row = {values, factors, scales};
      if (!quantise_int4_row(scratch.row.data(), shape_.inputs, shape_.factor_group, row)) {
        return false;
      }
      continue;
    }
    if (!quantise_row(scratch.row.data(), shape_.inputs, shape_.group, values, scales)) {
      return false;
    }
    rows[n] = {reinterpret_cast<const std::byte*>(values),
               reinterpret_cast<const std::byte*>(scales)};
  }
  if (shape_.is_int4()) {
    pack_int4_rows(scratch, count, panel);
  } else {
    pack_rows(rows, count, panel);
  }
  return true;
}

void PackedInt8::pack_int4_rows(const PanelScratch& rows, int count, int panel) {
  uint8_t* target = value_data() + panel * shape_.panel_bytes();
  const int lines = shape_.factor_lines();
  std::fill_n(target, lines * kStepBytes, uint8_t{0});
  std::fill_n(target + lines * kStepBytes, shape_.lines() * kStepBytes, uint8_t{0x88});
  for (int n = 0; n < kPanelOutputs; ++n) {
    scale_data()[panel * shape_.panel_scales() + n] = n < count ? rows.scales[n] : 0;
    if (n >= count) continue;
    for (int f = 0; f < shape_.factors(); ++f) {
      target[f * kPanelOutputs + n] =
          static_cast<uint8_t>(rows.factors[int64_t{n} * shape_.factors() + f]);
    }
    const int8_t* values = rows.values.data() + int64_t{n} * shape_.inputs;
    for (int i = 0; i < shape_.inputs; ++i) {
      const int nibble = values[i] + 8;
      uint8_t& byte = target[shape_.nibble_at(n, i)];
      const bool lower = i / kStepInputs % 2 == 0;
      byte = static_cast<uint8_t>(lower ? (byte & 0xF0) | nibble : (byte & 0x0F) | nibble << 4);
    }
  }
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

PanelShape PackedStack::shape_of(const HostTensor& matrix, const PanelFormat& format) {
  const auto outputs = static_cast<int>(matrix.shape[0]);
  const auto inputs = static_cast<int>(matrix.elements() / matrix.shape[0]);
  if (matrix.quantised()) return {outputs, inputs, matrix.group};
  if (format.factor_group > 0) return {outputs, inputs, inputs, format.factor_group};
  return {outputs, inputs, fitting_group(format.group, inputs)};
}

PackedStack::PackedStack(const LinearSource& source, const PanelFormat& format,
                         host::ThreadPool& pool)
    : values_(sum(source, format, [](const PanelShape& s) { return s.value_bytes(); })),
      scales_(sum(source, format, [](const PanelShape& s) { return s.scales() * kScaleBytes; })) {
  const std::byte* values = values_.data();
  const auto* scales = reinterpret_cast<const float*>(scales_.data());
  for (const HostTensor& weight : source.weights) {
    OCELLI_CHECK(weight.layout == Layout::kRows, "{} is in panels already", weight.name);
    const PanelShape shape = shape_of(weight, format);
    PackedInt8 packed(shape, values, scales);
    pack_matrix(weight, packed, pool);
    weights_.push_back({.name = weight.name,
                        .dtype = DType::kI8,
                        .shape = weight.shape,
                        .data = values,
                        .scales = scales,
                        .group = shape.group,
                        .layout = Layout::kPanels,
                        .factor_group = shape.factor_group});
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
      values_.push_back(static_cast<std::byte>(panel_value(panels, shape, n, i)));
    }
    for (int g = 0; g < shape.groups(); ++g) {
      scales_.push_back(scale_of(panels, shape.scale_at(n, g)));
    }
  }
  tensor_.data = values_.data();
  tensor_.scales = scales_.data();
  tensor_.layout = Layout::kRows;
  tensor_.factor_group = 0;
}

}  // namespace ocelli::kernels
