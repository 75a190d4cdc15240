#include "kernels/quantise_int4.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

namespace ocelli::kernels {
namespace {

// Sums are of this many lanes, in the same order whatever the compiler makes of them.
constexpr int kLanes = 4;
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));

// Steps that are tried for a group: its largest magnitude becomes −8 times a step, or −8 less one
// of these, which clips it.
constexpr std::array kClips = {-0.9F, -0.6F, -0.3F, 0.0F, 0.25F, 0.5F, 0.8F, 1.2F, 1.6F};
// Scales that are tried for a row: its largest step becomes this many times the scale.
constexpr std::array kLargestMultiples = {12.5F, 13.0F, 13.5F, 14.0F, 14.5F, 15.0F,
                                          15.5F, 16.2F, 17.0F, 18.0F, 20.0F, 22.5F};
// A row whose values are all smaller becomes zeros.
constexpr float kSmallestMagnitude = 0x1p-100F;

Lanes broadcast(float x) {
  return Lanes{} + x;
}

// The values of x in units of a step, to the nearest −8 … 7. Adding and taking away 1.5 · 2^23
// rounds to nearest, even.
Lanes rounded(Lanes x, Lanes inverse) {
  constexpr float kRounder = 0x1.8p23F;
  const Lanes low = broadcast(kLeastInt4);
  const Lanes high = broadcast(kLargestInt4);
  Lanes scaled = x * inverse;
  scaled = scaled > low ? scaled : low;
  scaled = scaled < high ? scaled : high;
  return scaled + kRounder - kRounder;
}

float sum(Lanes lanes) {
  float total = 0;
  for (int i = 0; i < kLanes; ++i) total += lanes[i];
  return total;
}

// The groups of a row, filled up with zeros to whole vectors: those stay zeros and cost nothing.
class Row {
 public:
  Row(const float* x, int count, int group, float unit)
      : vectors_((group + kLanes - 1) / kLanes), groups_((count + group - 1) / group) {
    values_.resize(static_cast<size_t>(vectors_) * groups_);
    auto* floats = reinterpret_cast<float*>(values_.data());
    for (int i = 0; i < count; ++i) {
      floats[int64_t{i / group} * vectors_ * kLanes + i % group] = x[i] * unit;
    }
  }

  int groups() const { return groups_; }

  // The squared error of group `g` with this step.
  float error(int g, float step) const {
    const Lanes inverse = broadcast(1 / step);
    const Lanes* x = values_.data() + int64_t{g} * vectors_;
    Lanes total = {};
    for (int i = 0; i < vectors_; ++i) {
      const Lanes off = x[i] - rounded(x[i], inverse) * step;
      total = total + off * off;
    }
    return sum(total);
  }

  // The step that suits group `g`, of either sign; 0 for zeros.
  float best_step(int g) const {
    const auto* x = reinterpret_cast<const float*>(values_.data() + int64_t{g} * vectors_);
    float extreme = 0;
    for (int i = 0; i < vectors_ * kLanes; ++i) {
      if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
    }
    // What is smaller is nothing beside the row's largest, which is about 1.
    if (std::fabs(extreme) < 0x1p-40F) return 0;
    float best = 0;
    float least = INFINITY;
    for (const float clip : kClips) {
      const float step = extreme / (clip + kLeastInt4);
      const float off = error(g, step);
      if (off < least) {
        least = off;
        best = step;
      }
    }
    return best;
  }

  // Σ x · v and Σ v² over group `g`, where v are the multiples of `factor` that x becomes.
  struct Fit {
    double products = 0;
    double squares = 0;
  };
  Fit fit(int g, float scale, int factor) const {
    const Lanes inverse = broadcast(1 / (scale * static_cast<float>(factor)));
    const Lanes* x = values_.data() + int64_t{g} * vectors_;
    Lanes products = {};
    Lanes squares = {};
    for (int i = 0; i < vectors_; ++i) {
      const Lanes v = rounded(x[i], inverse) * static_cast<float>(factor);
      products = products + x[i] * v;
      squares = squares + v * v;
    }
    return {sum(products), sum(squares)};
  }

  // The values of group `g`, of which there are `count`.
  void store(int g, float step, int count, int8_t* values) const {
    const Lanes inverse = broadcast(1 / step);
    const Lanes* x = values_.data() + int64_t{g} * vectors_;
    for (int i = 0; i < count; i += kLanes) {
      const Lanes v = rounded(x[i / kLanes], inverse);
      for (int k = 0; k < std::min(kLanes, count - i); ++k) {
        values[i + k] = static_cast<int8_t>(v[k]);
      }
    }
  }

 private:
  int vectors_;  // of a group
  int groups_;
  std::vector<Lanes> values_;
};

// A row's scale with the factors that suit it, and the squared error of both.
struct Choice {
  float scale = 0;
  std::vector<int8_t> factors;
  double error = INFINITY;
};

// The factors that suit `scale` where `steps` would suit the groups alone.
Choice choose_factors(const Row& row, const std::vector<float>& steps, float scale) {
  Choice choice;
  choice.scale = scale;
  choice.factors.resize(steps.size());
  choice.error = 0;
  for (int g = 0; g < row.groups(); ++g) {
    choice.factors[g] = 1;
    if (steps[g] == 0) continue;
    const int sign = steps[g] < 0 ? -1 : 1;
    const float wanted = std::min(std::fabs(steps[g]) / scale, float{kLargestFactor});
    const int below = std::max(1, static_cast<int>(wanted));
    float least = INFINITY;
    for (int factor = below; factor <= std::min(below + 1, kLargestFactor); ++factor) {
      const float off = row.error(g, scale * static_cast<float>(sign * factor));
      if (off < least) {
        least = off;
        choice.factors[g] = static_cast<int8_t>(sign * factor);
      }
    }
    choice.error += least;
  }
  return choice;
}

Choice choose(const Row& row) {
  std::vector<float> steps(row.groups());
  float largest = 0;
  for (int g = 0; g < row.groups(); ++g) {
    steps[g] = row.best_step(g);
    largest = std::max(largest, std::fabs(steps[g]));
  }
  Choice best;
  for (const float multiple : kLargestMultiples) {
    Choice tried = choose_factors(row, steps, largest / multiple);
    if (tried.error < best.error) best = std::move(tried);
  }
  // With what these factors make of the values, a slightly other scale is best.
  Row::Fit all;
  for (int g = 0; g < row.groups(); ++g) {
    const Row::Fit part = row.fit(g, best.scale, best.factors[g]);
    all.products += part.products;
    all.squares += part.squares;
  }
  const auto scale = static_cast<float>(all.products / all.squares);
  double error = 0;
  for (int g = 0; g < row.groups(); ++g) {
    error += row.error(g, scale * static_cast<float>(best.factors[g]));
  }
  if (error < best.error) best.scale = scale;
  return best;
}

}  // namespace

bool quantise_int4_row(const float* x, int count, int group, const Int4Row& out) {
  float largest = 0;
  for (int i = 0; i < count; ++i) {
    if (!std::isfinite(x[i])) return false;
    largest = std::max(largest, std::fabs(x[i]));
  }
  const int groups = (count + group - 1) / group;
  if (largest < kSmallestMagnitude) {
    std::fill_n(out.values, count, int8_t{0});
    std::fill_n(out.factors, groups, int8_t{1});
    *out.scale = 0;
    return true;
  }
  // In units of a power of two, so that no square overflows or vanishes.
  const int exponent = std::ilogb(largest);
  const Row row(x, count, group, std::ldexp(1.0F, -exponent));
  const Choice choice = choose(row);
  std::copy(choice.factors.begin(), choice.factors.end(), out.factors);
  *out.scale = std::ldexp(choice.scale, exponent);
  for (int g = 0; g < groups; ++g) {
    const int first = g * group;
    row.store(g, choice.scale * static_cast<float>(choice.factors[g]),
              std::min(group, count - first), out.values + first);
  }
  return true;
}

}  // namespace ocelli::kernels
