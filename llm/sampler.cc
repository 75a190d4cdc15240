#include "llm/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "host/error.h"
#include "llm/likelihoods.h"

namespace ocelli::llm {
namespace {

// Likelihoods are looked over in blocks, most of which hold no candidate.
constexpr size_t kBlock = 16;

// Orders candidates by likelihood; of equal ones the lower id is the likelier.
template <typename Candidate>
bool less_likely(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit < b.logit : a.id > b.id;
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
  if (options.temperature == 0) return;
  if (options.as_llama2c) {
    llama2c_.emplace(options.temperature, options.top_p, options.seed, vocab_size);
  } else {
    candidates_.reserve(vocab_size);
    weights_.resize(vocab_size);
  }
}

int32_t Sampler::sample(std::span<const float> logits, std::span<const int32_t> history) {
  if (options_.repetition_penalty != 1) logits = penalise(logits, history);
  const int32_t likeliest = kernels::first_maximum(logits);
  if (options_.temperature == 0 || likeliest == kNotFinite) return likeliest;
  if (llama2c_) return llama2c_->sample(logits);
  collect_candidates(logits, logits[likeliest]);
  return draw();
}

// A copy of `logits` with the tokens of `history` made less likely, each once.
std::span<const float> Sampler::penalise(std::span<const float> logits,
                                         std::span<const int32_t> history) {
  OCELLI_CHECK(logits.size() == penalised_.size(), "{} logits for a vocabulary of {}",
               logits.size(), penalised_.size());
  std::copy(logits.begin(), logits.end(), penalised_.begin());
  ++call_;
  for (const int32_t id : history) {
    if (id < 0 || static_cast<size_t>(id) >= seen_.size() || seen_[id] == call_) continue;
    seen_[id] = call_;
    float& logit = penalised_[id];
    logit = logit < 0 ? logit * options_.repetition_penalty : logit / options_.repetition_penalty;
  }
  return penalised_;
}

void Sampler::collect_candidates(std::span<const float> logits, float highest) {
  OCELLI_CHECK(logits.size() <= candidates_.capacity(), "{} logits for a vocabulary of {}",
               logits.size(), candidates_.capacity());
  const auto weights = std::span(weights_).first(logits.size());
  total_ = likelihoods(logits, highest, options_.temperature, weights);
  // The likeliest that make up top_p leave a rest of 1 − top_p to the others: none of them is less
  // likely than an even share of it, as all the others are no likelier. A little less, as sums are
  // rounded.
  double least = 0;
  if (options_.top_k == 0 && options_.top_p < 1) {
    least = 0.999 * (1 - options_.top_p) * total_ / static_cast<double>(logits.size());
  }
  const auto bar = static_cast<float>(least);
  candidates_.clear();
  for (size_t begin = 0; begin < weights.size(); begin += kBlock) {
    const size_t end = std::min(begin + kBlock, weights.size());
    float most = 0;
    for (size_t id = begin; id < end; ++id) most = weights[id] > most ? weights[id] : most;
    if (most <= bar) continue;
    for (size_t id = begin; id < end; ++id) {
      if (weights[id] <= bar) continue;
      candidates_.push_back({logits[id], static_cast<int32_t>(id), weights[id]});
    }
  }
  std::make_heap(candidates_.begin(), candidates_.end(), less_likely<Candidate>);
  taken_ = 0;
}

// The candidates in order of likelihood, from 0. They are sorted only as far as they are asked for:
// nearly always a few dozen of a vocabulary's tens of thousands.
const Sampler::Candidate& Sampler::nth_likeliest(size_t n) {
  for (; taken_ <= n; ++taken_) {
    const auto end = candidates_.end() - static_cast<ptrdiff_t>(taken_);
    std::pop_heap(candidates_.begin(), end, less_likely<Candidate>);
  }
  return candidates_[candidates_.size() - 1 - n];
}

// How many candidates top-k leaves: the k likeliest and all that equal the last of them.
size_t Sampler::top_k_count() {
  const auto k = static_cast<size_t>(options_.top_k);
  if (k == 0 || k >= candidates_.size()) return candidates_.size();
  const float last = nth_likeliest(k - 1).logit;
  size_t count = k;
  while (count < candidates_.size() && nth_likeliest(count).logit == last) ++count;
  return count;
}

int32_t Sampler::draw() {
  size_t count = top_k_count();
  double total = total_;
  if (count < candidates_.size()) {
    total = 0;
    for (size_t n = 0; n < count; ++n) total += nth_likeliest(n).weight;
  }
  if (options_.top_p < 1) {
    const double wanted = options_.top_p * total;
    double mass = 0;
    size_t kept = 0;
    while (kept < count && (kept == 0 || mass < wanted)) mass += nth_likeliest(kept++).weight;
    count = kept;
    total = mass;
  }
  double target = random_.uniform() * total;
  for (size_t n = 0; n < count; ++n) {
    const Candidate& candidate = nth_likeliest(n);
    if (target < candidate.weight) return candidate.id;
    target -= candidate.weight;
  }
  return nth_likeliest(0).id;  // only when rounding has left a crumb of the target
}

double token_probability(std::span<const float> logits, int32_t id) {
  OCELLI_CHECK(id >= 0 && static_cast<size_t>(id) < logits.size(), "id {} of {}", id,
               logits.size());
  const float highest = *std::max_element(logits.begin(), logits.end());
  std::array<float, 256> weights;
  double total = 0;
  for (size_t i = 0; i < logits.size(); i += weights.size()) {
    const size_t count = std::min(weights.size(), logits.size() - i);
    total += likelihoods(logits.subspan(i, count), highest, 1, std::span(weights).first(count));
  }
  return std::exp(static_cast<double>(logits[id]) - highest) / total;
}

}  // namespace ocelli::llm
