#include "kernels/quantise.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "host/error.h"

namespace ocelli::kernels {
namespace {

constexpr float kLargestValue = 127;
constexpr uint32_t kInfinityBits = 0x7F800000;
// The largest float below one half: adding it and cutting off rounds to nearest, halves away from
// zero, without a call of the library for every value.
constexpr float kBelowHalf = 0x1.FFFFFEp-2F;

// The largest magnitude's bits, which order as the magnitudes do; NaN's are above infinity's.
uint32_t largest_bits(const float* x, int count) {
  uint32_t largest = 0;
  for (int i = 0; i < count; ++i) {
    largest = std::max(largest, std::bit_cast<uint32_t>(x[i]) & 0x7FFFFFFFU);
  }
  return largest;
}

}  // namespace

int fitting_group(int wanted, int64_t inputs) {
  return wanted > 0 && inputs % wanted == 0 ? wanted : static_cast<int>(inputs);
}

bool quantise_row(const float* x, int64_t count, int group, int8_t* values, float* scales) {
  for (int64_t first = 0; first < count; first += group, x += group, values += group) {
    const uint32_t largest = largest_bits(x, group);
    if (largest >= kInfinityBits) return false;
    const float scale = std::bit_cast<float>(largest) / kLargestValue;
    *scales++ = scale;
    if (scale == 0) {
      std::fill_n(values, group, int8_t{0});
      continue;
    }
    for (int i = 0; i < group; ++i) {
      // A scale so small that it is a denormal is inexact, and the quotient may leave the range.
      const float scaled = std::clamp(x[i] / scale, -kLargestValue, kLargestValue);
      values[i] = static_cast<int8_t>(scaled + std::copysign(kBelowHalf, scaled));
    }
  }
  return true;
}

void refuse_non_finite(const HostTensor& matrix) {
  host::fail("NaN or infinity in the weights of \"{}\", which cannot be quantised",
             host::printable(matrix.name, 200));
}

}  // namespace ocelli::kernels
