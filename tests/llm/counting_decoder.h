// A decoder around another one, which counts its rows and fails where a test says so.
#pragma once

#include <memory>
#include <span>
#include <utility>

#include "host/error.h"
#include "llm/decoder.h"

namespace ocelli::llm {

class CountingDecoder : public Decoder {
 public:
  explicit CountingDecoder(std::unique_ptr<Decoder> inner) : inner_(std::move(inner)) {}

  int hidden_size() const override { return inner_->hidden_size(); }
  int vocab_size() const override { return inner_->vocab_size(); }
  const DecoderLimits& limits() const override { return inner_->limits(); }
  void embed(std::span<const int32_t> ids, const kernels::Tensor& out) override {
    if (ids.size() == fails_to_embed) throw host::Error("the device is gone");
    inner_->embed(ids, out);
  }
  kernels::Tensor forward(const kernels::Tensor& x, std::span<const kernels::Segment> segments,
                          std::span<const int32_t> wanted) override {
    if (std::exchange(fail_next, false)) throw host::Error("the device is gone");
    rows += x.rows;
    return inner_->forward(x, segments, wanted);
  }
  void logits(const kernels::Tensor& made, const kernels::Tensor& out) override {
    inner_->logits(made, out);
  }

  int rows = 0;               // of all forwards
  bool fail_next = false;     // the next forward throws, before it has done anything
  size_t fails_to_embed = 0;  // as many tokens at a time; 0: it fails no time

 private:
  std::unique_ptr<Decoder> inner_;
};

}  // namespace ocelli::llm
