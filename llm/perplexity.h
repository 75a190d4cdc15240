// How well a decoder foretells texts: the negative log likelihood of their tokens.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "kernels/ops.h"
#include "llm/decoder.h"

namespace ocelli::llm {

// Scores documents one after another on sequence 0 of a decoder that nobody else uses meanwhile.
//
// A document longer than the context is read through a sliding window: the first one holds its
// first `context` ids, every later one begins context / 2 further on and scores what none has
// scored, so that each token is foretold once, from half a context or more where there is as much.
class PerplexityMeter {
 public:
  // `context`: positions of a window, from 2 to limits().capacity. Both must outlive this.
  PerplexityMeter(kernels::Ops& ops, Decoder& decoder, int context);

  // From now on `observe` sees the logits that foretell each scored id, in order.
  void observe_logits(std::function<void(std::span<const float>)> observe) {
    observe_ = std::move(observe);
  }

  // Σ −ln P(ids[i] | ids before it) over i ≥ 1, in nats; NaN where the model computes NaN.
  // `advanced` is called with the number of tokens scored since the last call.
  double score(std::span<const int32_t> ids, const std::function<void(int64_t)>& advanced);

 private:
  double score_window(std::span<const int32_t> ids, int first_scored,
                      const std::function<void(int64_t)>& advanced);
  double score_rows(const kernels::Tensor& rows, std::span<const int32_t> next);

  kernels::Ops& ops_;
  Decoder& decoder_;
  int context_;
  kernels::Tensor x_;       // [max_rows, hidden]
  kernels::Tensor logits_;  // [logit_rows, vocab]
  std::vector<float> host_logits_;
  std::function<void(std::span<const float>)> observe_;
};

// −ln softmax(logits)[id], in nats.
double negative_log_likelihood(std::span<const float> logits, int32_t id);

}  // namespace ocelli::llm
