#include "kernels/packing.h"

#include <algorithm>
#include <cstring>

#include "host/error.h"

namespace ocelli::kernels {
namespace {

int ceil_div(int a, int b) {
  return a / b + (a % b != 0 ? 1 : 0);
}

// One row of a matrix: where its values start, and which of the matrix's scales is its first.
struct SourceRow {
  const std::byte* values = nullptr;
  const HostTensor* matrix = nullptr;
  int64_t first_scale = 0;
};

// Row `index` of stacked matrices.
SourceRow find_row(const LinearSource& source, int64_t index) {
  const int64_t inputs = source.weights[0].shape[1];
  for (const HostTensor& weight : source.weights) {
    if (index < weight.shape[0]) {
      return {weight.data + index * inputs, &weight, index * inputs / weight.group};
    }
    index -= weight.shape[0];
  }
  OCELLI_CHECK(false, "row {} past the last", index);
  return {};
}

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

}  // namespace

PackedInt8::PackedInt8(const LinearSource& source, int outputs)
    : outputs_(outputs),
      group_(source.weights[0].group),
      groups_(static_cast<int>(source.weights[0].shape[1]) / group_),
      steps_(ceil_div(group_, kStepInputs)),
      panels_(ceil_div(outputs, kPanelOutputs)),
      values_(panels_ * panel_bytes()),
      scales_(int64_t{panels_} * groups_ * kPanelOutputs * static_cast<int64_t>(sizeof(float))) {
}

void PackedInt8::pack_panel(const LinearSource& source, int panel) {
  SourceRow rows[kPanelOutputs];
  const int first = panel * kPanelOutputs;
  const int count = std::min(kPanelOutputs, outputs_ - first);
  for (int n = 0; n < count; ++n) rows[n] = find_row(source, int64_t{first} + n);
  uint8_t* target = value_data() + panel * panel_bytes();
  float* scales = scale_data() + int64_t{panel} * groups_ * kPanelOutputs;
  for (int g = 0; g < groups_; ++g) {
    for (int n = 0; n < kPanelOutputs; ++n) {
      *scales++ = n < count ? scale_of(*rows[n].matrix, rows[n].first_scale + g) : 0.0F;
    }
    for (int k = 0; k < group_; k += kStepInputs) {
      const int inputs = std::min(kStepInputs, group_ - k);
      for (int n = 0; n < kPanelOutputs; ++n, target += kStepInputs) {
        const int64_t input = int64_t{g} * group_ + k;
        const uint32_t word = n < count ? biased(rows[n].values + input, inputs) : kBias;
        std::memcpy(target, &word, sizeof word);
      }
    }
  }
}

}  // namespace ocelli::kernels
