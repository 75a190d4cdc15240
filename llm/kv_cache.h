// Where a decoder's keys and values live: one pair of matrices a layer, keys and values in
// different banks, each head of a sequence owning a run of rows.
#pragma once

#include <limits>
#include <span>
#include <vector>

#include "host/error.h"
#include "kernels/ops.h"
#include "llm/decoder.h"
#include "llm/decoder_config.h"

namespace ocelli::llm {

struct KvCacheShape {
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int sequences = 1;                            // that may be open at once
  int capacity = 0;                             // positions each may hold
  kernels::DType dtype = kernels::DType::kF32;  // or kF16, or kI8

  int64_t rows() const { return int64_t{sequences} * kv_heads * capacity; }
  int columns() const { return kernels::cache_columns(head_dim, dtype); }
  int64_t bytes() const {
    return int64_t{2} * layers * rows() * columns() * kernels::bytes_per_element(dtype);
  }
};

// What a decoder of this configuration keeps.
inline KvCacheShape kv_cache_shape(const DecoderConfig& config, const DecoderLimits& limits) {
  return {config.num_hidden_layers, config.num_key_value_heads,
          config.head_dim(),        limits.sequences,
          limits.capacity,          limits.kv_dtype};
}

class KvCache {
 public:
  KvCache(kernels::Ops& ops, const KvCacheShape& shape) : ops_(ops), shape_(shape) {
    if (shape.rows() > std::numeric_limits<int>::max()) {
      host::fail("a cache of {} sequences of {} positions is too large: lower --context or --batch",
                 shape.sequences, shape.capacity);
    }
    const auto rows = static_cast<int>(shape.rows());
    for (int i = 0; i < shape.layers; ++i) {
      layers_.push_back(
          {ops.tensor(rows, shape.columns(), shape.dtype, kernels::Placement::kKeys),
           ops.tensor(rows, shape.columns(), shape.dtype, kernels::Placement::kValues),
           shape.kv_heads, shape.head_dim, shape.capacity});
    }
  }

  const KvCacheShape& shape() const { return shape_; }
  // [sequences · kv_heads · capacity, columns], as kernels/ops.h says.
  const kernels::Tensor& keys(int layer) const { return layers_[layer].keys; }
  const kernels::Tensor& values(int layer) const { return layers_[layer].values; }

  // Rotates queries and keys by `angles`, if any, and stores keys and values of a step's segments
  // at their positions: Ops::append_rotated.
  void append_rotated(int layer, const kernels::Tensor& qkv, const kernels::Tensor& angles,
                      std::span<const kernels::Segment> segments) {
    ops_.append_rotated(qkv, angles, layers_[layer], segments);
  }

 private:
  kernels::Ops& ops_;
  KvCacheShape shape_;
  std::vector<kernels::LayerCache> layers_;
};

}  // namespace ocelli::llm
