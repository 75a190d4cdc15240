// Chooses the next token from a model's logits: greedily, or by chance as Hugging Face's generate()
// narrows it down.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kernels/first_maximum.h"
#include "llm/llama2c_sampler.h"
#include "llm/random.h"

namespace ocelli::llm {

struct SamplerOptions {
  float temperature = 0;         // 0: always the likeliest token, and chance plays no part
  int top_k = 0;                 // with chance: only the k likeliest; 0: all
  float top_p = 1;               // with chance: only the likeliest that make up this probability
  float repetition_penalty = 1;  // over 1 makes tokens of the history less likely, also at 0
  uint64_t seed = 0;             // the same seed draws the same tokens on every machine
  bool as_llama2c = false;       // with chance: draw as llama2.c does, which knows no top_k
};

class Sampler {
 public:
  // What sample() returns when the logits are not numbers.
  static constexpr int32_t kNotFinite = kernels::kNoMaximum;

  // Throws host::Error, naming the option, when one makes no sense: temperature not in [0, inf),
  // top_k < 0, top_p not in (0, 1], repetition_penalty not in (0, inf).
  Sampler(const SamplerOptions& options, int vocab_size);

  // Whether sample() is kernels::first_maximum() of the logits, whatever the history.
  bool takes_likeliest() const {
    return options_.temperature == 0 && options_.repetition_penalty == 1;
  }

  // The next token, an index into `logits` [vocab_size], which are left as they are. `history`
  // holds the tokens that the repetition penalty applies to; ids outside the vocabulary (images)
  // are passed over. In Hugging Face's order: repetition penalty, temperature, top-k (all that
  // equal the k-th stay), top-p (tokens stay while those likelier than them make up less than
  // top_p; one always stays). Of equal logits the lowest id counts as the likeliest.
  //
  // Returns kNotFinite when a logit is NaN or +infinity, or all are -infinity: the caller knows
  // which weights or activations to blame. -infinity itself is a token that is never drawn.
  // Neither allocates nor throws.
  int32_t sample(std::span<const float> logits, std::span<const int32_t> history);

 private:
  struct Candidate {
    float logit;
    int32_t id;
    float weight;  // its probability over that of the likeliest
  };

  std::span<const float> penalise(std::span<const float> logits, std::span<const int32_t> history);
  void collect_candidates(std::span<const float> logits, float highest);
  const Candidate& nth_likeliest(size_t n);
  size_t top_k_count();
  int32_t draw();

  SamplerOptions options_;
  Random random_;
  std::optional<Llama2cSampler> llama2c_;
  std::vector<float> penalised_;  // [vocab], only with a penalty
  std::vector<uint64_t> seen_;    // [vocab], the last call that penalised the token
  uint64_t call_ = 0;
  // Only with chance, at most [vocab]: a heap with the likeliest on top, and behind it those taken
  // off so far, the likeliest last.
  std::vector<Candidate> candidates_;
  size_t taken_ = 0;
  std::vector<float> weights_;  // [vocab], only with chance: the candidates' and all others'
  double total_ = 0;            // their sum
};

// The probability that the model itself gives to `id`: the softmax of `logits` at temperature 1.
double token_probability(std::span<const float> logits, int32_t id);

}  // namespace ocelli::llm
