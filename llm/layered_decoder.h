// A decoder as a stack of layers with rotary attention, the last of which computes only the rows
// that are wanted.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "llm/decoder.h"
#include "llm/decoder_config.h"
#include "llm/kv_cache.h"

namespace ocelli::llm {

class LayeredDecoder : public Decoder {
 public:
  int hidden_size() const override { return config_.hidden_size; }
  int vocab_size() const override { return config_.vocab_size; }
  const DecoderLimits& limits() const override { return limits_; }
  // Of a row that is not wanted the last layer makes its key and its value, where that spares it
  // half of its rows or more.
  kernels::Tensor forward(const kernels::Tensor& x, std::span<const kernels::Segment> segments,
                          std::span<const int32_t> wanted) final;

 protected:
  // Of each head `rotary_dims` are rotated, or none where that is 0; `last_qkv` are the last
  // layer's q, k and v. `ops` and the weights' memory must outlive this.
  LayeredDecoder(kernels::Ops& ops, const DecoderConfig& config, int rotary_dims,
                 const kernels::LinearSource& last_qkv, const DecoderLimits& limits);

  // A new activation of max_rows rows.
  kernels::Tensor activation(int cols, kernels::DType dtype = kernels::DType::kF32) const;
  // Where a step's queries, keys and values are to stand: [rows, hidden + 2 · kv_width].
  kernels::Tensor qkv(int rows) const { return qkv_.row_range(0, rows); }
  // Once they stand there: rotates them, appends keys and values to the layer's cache and returns
  // what the rows attend to, [rows, hidden].
  kernels::Tensor attend(int index, int rows, std::span<const kernels::Segment> segments);

 private:
  // x becomes what layer `index` makes of it; h, of the same shape, is scratch.
  virtual void run_layer(int index, const kernels::Tensor& x, const kernels::Tensor& h,
                         std::span<const kernels::Segment> segments) = 0;
  // The norm whose rows the last layer makes queries, keys and values of.
  virtual const kernels::Norm& last_norm() const = 0;
  // Appends the keys and values that the last layer makes of x, and leaves x as it is.
  void append_last(const kernels::Tensor& x, const kernels::Tensor& h,
                   std::span<const kernels::Segment> segments);

  kernels::Ops& ops_;
  DecoderConfig config_;
  DecoderLimits limits_;
  kernels::AttentionShape attention_;
  kernels::Linear last_kv_;  // of the last layer's qkv
  kernels::Tensor rope_;     // [capacity, rotary_dims]: cosines, then sines
  KvCache cache_;
  // Activations for max_rows rows.
  kernels::Tensor h_;                     // [rows, hidden]
  kernels::Tensor qkv_;                   // [rows, hidden + 2 · kv_width]
  kernels::Tensor context_;               // [rows, hidden]
  std::vector<kernels::Segment> wanted_;  // of the call in hand
};

// What the rows `wanted` of a step, ascending, are segments of once they stand one under the other:
// each row goes on with its own sequence, at its own position. Rows that follow one another stay
// together. The result is in `out`, which needs as much room as there are rows.
std::span<const kernels::Segment> select_rows(std::span<const kernels::Segment> segments,
                                              std::span<const int32_t> wanted,
                                              std::vector<kernels::Segment>& out);

}  // namespace ocelli::llm
