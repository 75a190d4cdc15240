// Where a decoder's keys and values live: one pair of matrices a layer, keys and values in
// different banks, each sequence owning a run of rows.
#pragma once

#include <span>
#include <vector>

#include "kernels/ops.h"
#include "llm/decoder.h"

namespace ocelli::llm {

struct KvCacheShape {
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int sequences = 1;                            // that may be open at once
  int capacity = 0;                             // positions each may hold
  kernels::DType dtype = kernels::DType::kF32;  // or kF16, or kI8

  int columns() const { return kernels::cache_columns(kv_heads, head_dim, dtype); }
  int64_t bytes() const {
    return int64_t{2} * layers * sequences * capacity * columns() *
           kernels::bytes_per_element(dtype);
  }
};

// What a decoder of this configuration (Phi2Config, Llama2Config) keeps.
template <typename Config>
KvCacheShape kv_cache_shape(const Config& config, const DecoderLimits& limits) {
  return {config.num_hidden_layers, config.num_key_value_heads,
          config.head_dim(),        limits.sequences,
          limits.capacity,          limits.kv_dtype};
}

class KvCache {
 public:
  KvCache(kernels::Ops& ops, const KvCacheShape& shape) : ops_(ops), shape_(shape) {
    const int rows = shape.sequences * shape.capacity;
    for (int i = 0; i < shape.layers; ++i) {
      keys_.push_back(ops.tensor(rows, shape.columns(), shape.dtype, kernels::Placement::kKeys));
      values_.push_back(
          ops.tensor(rows, shape.columns(), shape.dtype, kernels::Placement::kValues));
    }
  }

  const KvCacheShape& shape() const { return shape_; }
  // [sequences · capacity, columns]; sequence s owns rows from s · capacity on.
  const kernels::Tensor& keys(int layer) const { return keys_[layer]; }
  const kernels::Tensor& values(int layer) const { return values_[layer]; }

  // Stores the keys and values [rows, kv_heads · head_dim] of a step's segments at their positions.
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
