#include "llm/llama2c_sampler.h"

#include <algorithm>
#include <cmath>

#include "host/error.h"

namespace ocelli::llm {

Llama2cSampler::Llama2cSampler(float temperature, float top_p, uint64_t seed, int vocab_size)
    : temperature_(temperature),
      top_p_(top_p),
      state_(seed),
      probabilities_(vocab_size),
      candidates_(vocab_size) {
  OCELLI_CHECK(temperature > 0, "temperature {}", temperature);
}

int32_t Llama2cSampler::sample(std::span<const float> logits) {
  OCELLI_CHECK(logits.size() == probabilities_.size(), "{} logits for a vocabulary of {}",
               logits.size(), probabilities_.size());
  softmax(logits);
  const float coin = uniform();
  return top_p_ <= 0 || top_p_ >= 1 ? draw_from_all(coin) : draw_from_likeliest(coin);
}

void Llama2cSampler::softmax(std::span<const float> logits) {
  float highest = logits[0] / temperature_;
  for (size_t i = 0; i < logits.size(); ++i) {
    probabilities_[i] = logits[i] / temperature_;
    highest = std::max(highest, probabilities_[i]);
  }
  float sum = 0;
  for (float& p : probabilities_) {
    p = std::exp(p - highest);
    sum += p;
  }
  for (float& p : probabilities_) p /= sum;
}

int32_t Llama2cSampler::draw_from_all(float coin) const {
  float sum = 0;
  for (size_t i = 0; i < probabilities_.size(); ++i) {
    sum += probabilities_[i];
    if (coin < sum) return static_cast<int32_t>(i);
  }
  return static_cast<int32_t>(probabilities_.size() - 1);  // rounding
}

int32_t Llama2cSampler::draw_from_likeliest(float coin) {
  // What is less likely than this cannot be among the likeliest that make up top_p.
  const float least = (1.0F - top_p_) / static_cast<float>(probabilities_.size() - 1);
  size_t count = 0;
  for (size_t i = 0; i < probabilities_.size(); ++i) {
    if (probabilities_[i] >= least) {
      candidates_[count++] = {probabilities_[i], static_cast<int32_t>(i)};
    }
  }
  // Equal ones stay in order, as the C library's merge sort leaves them there.
  const auto candidates = std::span(candidates_).first(count);
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return a.probability != b.probability ? a.probability > b.probability : a.id < b.id;
  });
  float mass = 0;
  size_t kept = 0;
  while (kept < count && mass <= top_p_) mass += candidates[kept++].probability;
  const float target = coin * mass;
  float sum = 0;
  for (size_t i = 0; i < kept; ++i) {
    sum += candidates[i].probability;
    if (target < sum) return candidates[i].id;
  }
  return candidates[kept - 1].id;  // rounding
}

// xorshift* of 64 bits, its upper half's upper 24 bits: in [0, 1).
float Llama2cSampler::uniform() {
  state_ ^= state_ >> 12;
  state_ ^= state_ << 25;
  state_ ^= state_ >> 27;
  const auto bits = static_cast<uint32_t>(state_ * 0x2545F4914F6CDD1D >> 32);
  return static_cast<float>(bits >> 8) / 16777216.0F;
}

}  // namespace ocelli::llm
