// What every decoder-only language model offers: embed, forward, logits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "kernels/ops.h"

namespace ocelli::llm {

// How much a decoder is to hold: it allocates all of it when it is made.
struct DecoderLimits {
  int sequences = 1;    // open at once
  int capacity = 2048;  // positions each may hold
  int max_rows = 1024;  // rows of one forward()
  kernels::DType kv_dtype = kernels::DType::kF32;
  int scored_rows = 0;  // rows of one logits(), where that is more than a row a sequence
  // Every layer computes every row, for somebody who watches them; or the last one does those whose
  // logits are wanted alone.
  bool every_row = false;

  int logit_rows() const { return std::max(sequences, scored_rows); }
};

class Decoder {
 public:
  virtual ~Decoder() = default;

  virtual int hidden_size() const = 0;
  virtual int vocab_size() const = 0;
  virtual const DecoderLimits& limits() const = 0;

  // out[i] = the embedding of ids[i]; out is [ids, hidden_size].
  virtual void embed(std::span<const int32_t> ids, const kernels::Tensor& out) = 0;
  // Runs every layer over x, [rows, hidden_size] and at most max_rows rows. Each segment's keys and
  // values join its sequence's cache at positions past …; past must be what the sequence already
  // holds. Segments cover x without overlap; a sequence has at most one. Returns what becomes of
  // the rows `wanted` of x, which ascend, one under the other: in x, whose values are lost, or in
  // the decoder's own memory until the next call.
  virtual kernels::Tensor forward(const kernels::Tensor& x,
                                  std::span<const kernels::Segment> segments,
                                  std::span<const int32_t> wanted) = 0;
  // out[i] = the logits of row i of `rows`, which are forward()'s and are lost; out is
  // [rows, vocab_size].
  virtual void logits(const kernels::Tensor& rows, const kernels::Tensor& out) = 0;
};

}  // namespace ocelli::llm
