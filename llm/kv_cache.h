// Where a decoder's keys and values live: one pair of matrices a layer, keys and values in
// different banks, each sequence owning a run of rows.
#pragma once

#include <span>
#include <vector>

#include "kernels/ops.h"

namespace ocelli::llm {

struct KvCacheShape {
  int layers = 0;
  int width = 0;                                // kv_heads · head_dim
  int sequences = 1;                            // that may be open at once
  int capacity = 0;                             // positions each may hold
  kernels::DType dtype = kernels::DType::kF32;  // or kF16

  int64_t bytes() const {
    return int64_t{2} * layers * sequences * capacity * width * kernels::bytes_per_element(dtype);
  }
};

class KvCache {
 public:
  KvCache(kernels::Ops& ops, const KvCacheShape& shape) : ops_(ops), shape_(shape) {
    const int rows = shape.sequences * shape.capacity;
    for (int i = 0; i < shape.layers; ++i) {
      keys_.push_back(ops.tensor(rows, shape.width, shape.dtype, kernels::Placement::kKeys));
      values_.push_back(ops.tensor(rows, shape.width, shape.dtype, kernels::Placement::kValues));
    }
  }

  const KvCacheShape& shape() const { return shape_; }
  // [sequences · capacity, width]; sequence s owns rows from s · capacity on.
  const kernels::Tensor& keys(int layer) const { return keys_[layer]; }
  const kernels::Tensor& values(int layer) const { return values_[layer]; }

  // Stores the keys and values [rows, width] of a step's segments at their positions.
  void append(int layer, const kernels::Tensor& keys, const kernels::Tensor& values,
              std::span<const kernels::Segment> segments) {
    ops_.append(keys, keys_[layer], shape_.capacity, segments);
    ops_.append(values, values_[layer], shape_.capacity, segments);
  }

 private:
  kernels::Ops& ops_;
  KvCacheShape shape_;
  std::vector<kernels::Tensor> keys_;
  std::vector<kernels::Tensor> values_;
};

}  // namespace ocelli::llm
