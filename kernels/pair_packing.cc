#include "kernels/pair_packing.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "host/error.h"

namespace ocelli::kernels {
namespace {

constexpr uint16_t kExponent = 0x7F80;

int64_t bytes_of(const LinearSource& source) {
  int64_t bytes = 0;
  for (const HostTensor& weight : source.weights) bytes += planned_pairs(weight).bytes();
  return bytes;
}

// Rows [first, first + count) of a matrix in rows as fp32.
void read_rows(const HostTensor& matrix, int first, int count, std::vector<float>& out) {
  const int64_t inputs = matrix.pair_shape().inputs;
  HostTensor rows = matrix;
  rows.shape = {count, inputs};
  rows.data += first * inputs * bytes_per_element(matrix.dtype);
  if (matrix.quantised()) rows.scales += first * (inputs / matrix.group);
  out.resize(count * inputs);
  convert_to_f32(rows, out.data());
}

// Packs a panel; returns whether all of it is finite.
bool pack_panel(const HostTensor& matrix, int panel, std::vector<float>& rows, uint16_t* out) {
  const PairShape shape = matrix.pair_shape();
  const int first = panel * kPanelOutputs;
  const int count = std::min(kPanelOutputs, shape.outputs - first);
  read_rows(matrix, first, count, rows);
  bool finite = true;
  for (int i = 0; i < 2 * shape.steps(); i += 2) {
    for (int n = 0; n < kPanelOutputs; ++n) {
      for (int k = i; k < i + 2; ++k) {
        const bool exists = n < count && k < shape.inputs;
        *out = exists ? f32_to_bf16(rows[int64_t{n} * shape.inputs + k]) : uint16_t{0};
        finite = finite && (*out++ & kExponent) != kExponent;
      }
    }
  }
  return finite;
}

}  // namespace

HostTensor planned_pairs(const HostTensor& matrix) {
  return {
      .name = matrix.name, .dtype = DType::kBF16, .shape = matrix.shape, .layout = Layout::kPanels};
}

PairStack::PairStack(const LinearSource& source, host::ThreadPool& pool)
    : values_(bytes_of(source)) {
  std::byte* data = values_.data();
  std::vector<std::vector<float>> rows(pool.size());
  for (const HostTensor& weight : source.weights) {
    OCELLI_CHECK(weight.layout == Layout::kRows, "{} is in panels already", weight.name);
    HostTensor packed = planned_pairs(weight);
    packed.data = data;
    const PairShape shape = packed.pair_shape();
    std::atomic<bool> finite = true;
    pool.parallel_for(shape.panels(), [&](int panel, int thread) {
      auto* out = reinterpret_cast<uint16_t*>(data) + panel * shape.panel_values();
      if (!pack_panel(weight, panel, rows[thread], out)) finite = false;
    });
    if (!finite) {
      host::fail("a weight of \"{}\" is NaN, infinite, or too large for bf16",
                 host::printable(weight.name, 200));
    }
    data += packed.bytes();
    weights_.push_back(std::move(packed));
  }
}

UnpackedPairs::UnpackedPairs(const HostTensor& panels) : tensor_(panels) {
  const PairShape shape = panels.pair_shape();
  values_.reserve(panels.elements());
  for (int n = 0; n < shape.outputs; ++n) {
    for (int i = 0; i < shape.inputs; ++i) {
      uint16_t value;
      std::memcpy(&value, panels.data + shape.value_at(n, i) * int64_t{sizeof value}, sizeof value);
      values_.push_back(value);
    }
  }
  tensor_.data = reinterpret_cast<const std::byte*>(values_.data());
  tensor_.layout = Layout::kRows;
}

}  // namespace ocelli::kernels
