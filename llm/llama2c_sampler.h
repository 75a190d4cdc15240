// Chance as llama2.c's run.c draws it, so that one seed tells the same story there and here.
//
// Source: the Sampler of run.c, in its fp32 arithmetic: softmax, then a draw from everything, or
// from the likeliest tokens until they make up more than top_p.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace ocelli::llm {

class Llama2cSampler {
 public:
  // temperature > 0; a top_p of 0 or of 1 and more draws from everything.
  Llama2cSampler(float temperature, float top_p, uint64_t seed, int vocab_size);

  // The next token, an index into `logits` [vocab_size]. Neither allocates nor throws.
  int32_t sample(std::span<const float> logits);

 private:
  struct Candidate {
    float probability;
    int32_t id;
  };

  void softmax(std::span<const float> logits);
  int32_t draw_from_all(float coin) const;
  int32_t draw_from_likeliest(float coin);
  float uniform();

  float temperature_;
  float top_p_;
  uint64_t state_;                     // of xorshift*
  std::vector<float> probabilities_;   // [vocab]
  std::vector<Candidate> candidates_;  // [vocab]: those likely enough to matter
};

}  // namespace ocelli::llm
