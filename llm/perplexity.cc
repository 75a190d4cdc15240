#include "llm/perplexity.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "host/error.h"

namespace ocelli::llm {

using kernels::DType;
using kernels::Placement;
using kernels::Tensor;

PerplexityMeter::PerplexityMeter(kernels::Ops& ops, Decoder& decoder, int context)
    : ops_(ops), decoder_(decoder), context_(context) {
  const DecoderLimits& limits = decoder.limits();
  OCELLI_CHECK(context >= 2 && context <= limits.capacity, "a window of {} in {} positions",
               context, limits.capacity);
  x_ = ops.tensor(limits.max_rows, decoder.hidden_size(), DType::kF32, Placement::kActivation);
  logits_ =
      ops.tensor(limits.logit_rows(), decoder.vocab_size(), DType::kF32, Placement::kActivation);
  host_logits_.resize(static_cast<size_t>(limits.logit_rows()) * decoder.vocab_size());
}

double PerplexityMeter::score(std::span<const int32_t> ids,
                              const std::function<void(int64_t)>& advanced) {
  double nats = 0;
  size_t begin = 0;
  for (size_t scored = 1; scored < ids.size();) {
    const size_t end = std::min(begin + context_, ids.size());
    nats +=
        score_window(ids.subspan(begin, end - begin), static_cast<int>(scored - begin), advanced);
    scored = end;
    begin += context_ / 2;
  }
  return nats;
}

// Runs a window from its beginning and scores the ids from `first_scored` on.
double PerplexityMeter::score_window(std::span<const int32_t> ids, int first_scored,
                                     const std::function<void(int64_t)>& advanced) {
  const int size = static_cast<int>(ids.size());
  const int most = decoder_.limits().logit_rows();
  std::vector<int32_t> rows(x_.rows);
  std::iota(rows.begin(), rows.end(), 0);
  double nats = 0;
  // The last id is foretold and needs no row of its own.
  for (int past = 0; past < size - 1; past += x_.rows) {
    const int run = std::min(x_.rows, size - 1 - past);
    const Tensor x = x_.row_range(0, run);
    decoder_.embed(ids.subspan(past, run), x);
    const kernels::Segment segment = {0, 0, run, past};
    const int first = std::clamp(first_scored - 1 - past, 0, run);
    const auto wanted = std::span(rows).subspan(first, run - first);
    const Tensor scored = decoder_.forward(x, {&segment, 1}, wanted);
    for (int row = 0; row < scored.rows; row += most) {
      const int count = std::min(most, scored.rows - row);
      nats += score_rows(scored.row_range(row, count), ids.subspan(past + first + row + 1, count));
      advanced(count);
    }
  }
  return nats;
}

double PerplexityMeter::score_rows(const Tensor& rows, std::span<const int32_t> next) {
  const Tensor logits = logits_.row_range(0, rows.rows);
  decoder_.logits(rows, logits);
  const size_t vocab = decoder_.vocab_size();
  const auto values = std::span(host_logits_).first(next.size() * vocab);
  ops_.read(logits, values);
  double nats = 0;
  for (size_t i = 0; i < next.size(); ++i) {
    const auto row = values.subspan(i * vocab, vocab);
    nats += negative_log_likelihood(row, next[i]);
    if (observe_) observe_(row);
  }
  return nats;
}

double negative_log_likelihood(std::span<const float> logits, int32_t id) {
  OCELLI_CHECK(id >= 0 && static_cast<size_t>(id) < logits.size(), "id {} of {}", id,
               logits.size());
  const float highest = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const float logit : logits) total += std::exp(logit - highest);
  return std::log(total) + highest - logits[id];
}

}  // namespace ocelli::llm
