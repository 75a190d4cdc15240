#include "llm/likelihoods.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cfloat>
#include <cstddef>
#include <cstdint>

namespace ocelli::llm {
namespace {

// Fixed numbers of them, which the compiler keeps in vector registers.
constexpr size_t kLanes = 16;
constexpr size_t kBlock = 256;
constexpr float kNeverDrawn = -48;

// e^x for x ≤ 0: x = n·ln 2 + r with |r| ≤ ln 2 / 2, and e^r by its Taylor series, whose first
// term left out is r^8/8! < 6e-9. Every step is one rounding, so it is compiled without
// contraction.
inline float exponential(float x) {
  constexpr float kRounder = 12582912;  // 1.5 · 2^23: what is added to it is rounded to an integer
  constexpr float kLog2E = 1.44269504F;
  constexpr float kLn2Upper = 0.693359375F;  // few bits, so that its multiples are exact
  constexpr float kLn2Lower = -2.12194440e-4F;
  const float inside = std::max(x, kNeverDrawn);
  const float rounded = inside * kLog2E + kRounder;
  const float n = rounded - kRounder;
  const float r = inside - n * kLn2Upper - n * kLn2Lower;
  float sum = 1.0F / 5040;
  sum = sum * r + 1.0F / 720;
  sum = sum * r + 1.0F / 120;
  sum = sum * r + 1.0F / 24;
  sum = sum * r + 1.0F / 6;
  sum = sum * r + 0.5F;
  sum = sum * r + 1;
  sum = sum * r + 1;
  const int32_t exponent = std::bit_cast<int32_t>(rounded) - std::bit_cast<int32_t>(kRounder);
  const float power = std::bit_cast<float>((exponent + 127) << 23);
  // Without a branch, so that the compiler computes several at once.
  const int32_t drawn = -static_cast<int32_t>(x >= kNeverDrawn);
  return std::bit_cast<float>(std::bit_cast<int32_t>(sum * power) & drawn);
}

}  // namespace

double likelihoods(std::span<const float> logits, float highest, float temperature,
                   std::span<float> weights) {
  // Finite, so that what equals the highest is at distance 0.
  const float inverse = std::min(1 / temperature, FLT_MAX);
  double total = 0;
  size_t i = 0;
  for (; i + kBlock <= logits.size(); i += kBlock) {
    std::array<float, kLanes> sums{};
    for (size_t j = i; j < i + kBlock; j += kLanes) {
      for (size_t lane = 0; lane < kLanes; ++lane) {
        const float weight = exponential((logits[j + lane] - highest) * inverse);
        weights[j + lane] = weight;
        sums[lane] += weight;
      }
    }
    for (const float sum : sums) total += sum;
  }
  for (; i < logits.size(); ++i) {
    weights[i] = exponential((logits[i] - highest) * inverse);
    total += weights[i];
  }
  return total;
}

}  // namespace ocelli::llm
