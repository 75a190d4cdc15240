#include "kernels/first_maximum.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace ocelli::kernels {
namespace {

// A fixed number of running maxima, which the compiler keeps in vector registers.
constexpr size_t kLanes = 16;
// The largest is looked for in the first block that has it, not from the beginning.
constexpr size_t kBlock = 1024;

// The largest of `values`, or NaN when one is.
float maximum(std::span<const float> values) {
  std::array<float, kLanes> highest;
  std::array<int32_t, kLanes> faults{};
  highest.fill(-std::numeric_limits<float>::infinity());
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const float value = values[i + lane];
      highest[lane] = value > highest[lane] ? value : highest[lane];
      faults[lane] |= static_cast<int32_t>(value != value);
    }
  }
  for (; i < values.size(); ++i) {
    highest[0] = std::max(highest[0], values[i]);
    faults[0] |= static_cast<int32_t>(std::isnan(values[i]));
  }
  const bool faulty = std::any_of(faults.begin(), faults.end(), [](int32_t f) { return f != 0; });
  return faulty ? NAN : *std::max_element(highest.begin(), highest.end());
}

}  // namespace

int32_t first_maximum(std::span<const float> values) {
  float highest = -std::numeric_limits<float>::infinity();
  size_t block = 0;
  for (size_t i = 0; i < values.size(); i += kBlock) {
    const float here = maximum(values.subspan(i, std::min(kBlock, values.size() - i)));
    if (std::isnan(here)) return kNoMaximum;
    if (here <= highest) continue;
    highest = here;
    block = i;
  }
  if (!std::isfinite(highest)) return kNoMaximum;
  const auto begin = values.begin() + static_cast<ptrdiff_t>(block);
  return static_cast<int32_t>(std::find(begin, values.end(), highest) - values.begin());
}

}  // namespace ocelli::kernels
