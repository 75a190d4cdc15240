// A decorator that records where rows of a causal decoder look.
#pragma once

#include <memory>
#include <vector>

#include "kernels/forwarding_ops.h"

namespace ocelli::kernels {

// Which rows of a sequence to record, and which of the positions that they look at; both count
// positions of the context from 0 on.
struct AttentionWatch {
  int sequence = 0;
  int first_key = 0;
  int keys = 0;
  int first_row = 0;  // not before first_key + keys: a row sees no position behind it
  int rows = 0;       // at most; those that have not come when it ends are no part of the record
};

// weights[r * keys + k] is how much row first_row + r looked at position first_key + k: softmax(
// scale · q·kᵀ) over all that the row sees, its mean over every head of every layer. A row's
// weights add up to at most 1, the rest having gone to other positions.
struct AttentionRecord {
  int rows = 0;
  int keys = 0;
  std::vector<float> weights;
};

// Forwards every operation. While something is watched, causal attention also reads the queries of
// the rows that are, and all keys that they see, and computes their softmax once more on the host,
// on one thread: results are those of the backend beneath, to the bit.
class AttentionProbe : public ForwardingOps {
 public:
  using ForwardingOps::ForwardingOps;

  // Records from the next operation on; returns what end() knows the watch by.
  virtual int begin(const AttentionWatch& watch) = 0;
  // Forgets the watch and returns its record.
  virtual AttentionRecord end(int watch) = 0;
};

std::unique_ptr<AttentionProbe> make_attention_probe(std::unique_ptr<Ops> inner);

}  // namespace ocelli::kernels
