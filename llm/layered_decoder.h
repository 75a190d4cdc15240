// A decoder as a stack of layers, the last of which computes only the rows that are wanted.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "llm/decoder.h"
#include "llm/decoder_config.h"

namespace ocelli::llm {

class LayeredDecoder : public Decoder {
 public:
  const DecoderLimits& limits() const override { return limits_; }
  // Of a row that is not wanted the last layer makes its key and its value, where that spares it
  // half of its rows or more.
  kernels::Tensor forward(const kernels::Tensor& x, std::span<const kernels::Segment> segments,
                          std::span<const int32_t> wanted) final;

 protected:
  // `ops` must outlive this.
  LayeredDecoder(kernels::Ops& ops, const DecoderConfig& config, const DecoderLimits& limits);

 private:
  // x becomes what layer `index` makes of it; h, of the same shape, is scratch.
  virtual void run_layer(int index, const kernels::Tensor& x, const kernels::Tensor& h,
                         std::span<const kernels::Segment> segments) = 0;
  // Appends the keys and values that the last layer makes of x, and leaves x as it is.
  virtual void append_last(const kernels::Tensor& x, const kernels::Tensor& h,
                           std::span<const kernels::Segment> segments) = 0;

  kernels::Ops& ops_;
  DecoderLimits limits_;
  int layers_;
  kernels::Tensor h_;                     // [max_rows, hidden]
  std::vector<kernels::Segment> wanted_;  // of the call in hand
};

// What the rows `wanted` of a step, ascending, are segments of once they stand one under the other:
// each row goes on with its own sequence, at its own position. Rows that follow one another stay
// together. The result is in `out`, which needs as much room as there are rows.
std::span<const kernels::Segment> select_rows(std::span<const kernels::Segment> segments,
                                              std::span<const int32_t> wanted,
                                              std::vector<kernels::Segment>& out);

}  // namespace ocelli::llm
