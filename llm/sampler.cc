#include "llm/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "host/error.h"

namespace ocelli::llm {
namespace {

// A fixed number of running maxima, which the compiler keeps in vector registers.
constexpr size_t kLanes = 16;

// The index of the first largest of `logits`; Sampler::kNotFinite when one is NaN or +infinity, or
// the largest is -infinity.
int32_t first_maximum(std::span<const float> logits) {
  std::array<float, kLanes> highest;
  std::array<int32_t, kLanes> faults{};
  highest.fill(-std::numeric_limits<float>::infinity());
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const float logit = logits[i + lane];
      highest[lane] = logit > highest[lane] ? logit : highest[lane];
      faults[lane] |= static_cast<int32_t>(logit != logit);
    }
  }
  for (; i < logits.size(); ++i) {
    highest[0] = std::max(highest[0], logits[i]);
    faults[0] |= static_cast<int32_t>(std::isnan(logits[i]));
  }
  const float maximum = *std::max_element(highest.begin(), highest.end());
  const bool faulty = std::any_of(faults.begin(), faults.end(), [](int32_t f) { return f != 0; });
  if (faulty || !std::isfinite(maximum)) return Sampler::kNotFinite;
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), maximum) - logits.begin());
}

void require(bool sound, const char* option, double value, const char* wanted) {
  if (!sound) host::fail("{} is {}, wanted {}", option, value, wanted);
}

}  // namespace

Sampler::Sampler(const SamplerOptions& options, int vocab_size)
    : options_(options), random_(options.seed) {
  OCELLI_CHECK(vocab_size > 0, "vocab_size {}", vocab_size);
  require(options.temperature >= 0 && std::isfinite(options.temperature), "the temperature",
          options.temperature, "0 or more");
  require(options.top_k >= 0, "top-k", options.top_k, "0 (off) or more");
  require(options.top_p > 0 && options.top_p <= 1, "top-p", options.top_p,
          "more than 0 and at most 1");
  require(options.repetition_penalty > 0 && std::isfinite(options.repetition_penalty),
          "the repetition penalty", options.repetition_penalty, "more than 0");
  if (options.repetition_penalty != 1) {
    penalised_.resize(vocab_size);
    seen_.resize(vocab_size);
  }
  if (options.temperature > 0) {
    candidates_.resize(vocab_size);
    weights_.resize(vocab_size);
  }
}

int32_t Sampler::sample(std::span<const float> logits, std::span<const int32_t> history) {
  if (options_.repetition_penalty != 1) logits = penalise(logits, history);
  const int32_t likeliest = first_maximum(logits);
  if (options_.temperature == 0 || likeliest == kNotFinite) return likeliest;
  return draw(keep_likeliest(logits));
}
