// The shapes, dtypes and bounds that ops.h promises, checked once for every backend: a broken
// promise is a bug of ours and aborts with the values.
#pragma once

#include <cstddef>
#include <span>

#include "kernels/ops.h"

namespace ocelli::kernels {

// Matrices of one width, all of floats or all quantised in the same groups, one bias a matrix or
// none. Returns the sum of their outputs.
int check_linear_source(const LinearSource& source);

void check_embed(const Tensor& table, std::span<const int32_t> rows, const Tensor& out);
void check_linear(const Tensor& x, const LinearWeights& weights, const Tensor& out,
                  Epilogue epilogue);
void check_layer_norm(const Tensor& x, const Norm& norm, const Tensor& out);
void check_rms_norm(const Tensor& x, const Norm& norm, const Tensor& out);
// What Ops::project promises.
void check_project(const Tensor& x, const Norm* norm, std::span<const Projection> projections,
                   const Tensor& normed);
void check_rope(const Tensor& x, int head_dim, const Tensor& table,
                std::span<const Segment> segments);
void check_append(const Tensor& x, const Tensor& cache, int capacity,
                  std::span<const Segment> segments);
// The width of the first argument of Ops::append_rotated, and all that this promises.
void check_qkv(const Tensor& qkv, const LayerCache& cache);
void check_append_rotated(const Tensor& qkv, const Tensor& angles, const LayerCache& cache,
                          std::span<const Segment> segments);
// The operands of attention, as Ops::attention names them.
struct AttentionTensors {
  const Tensor& q;
  const Tensor& keys;
  const Tensor& values;
  const Tensor& out;
};
void check_attention(const AttentionTensors& tensors, const AttentionShape& shape,
                     std::span<const Segment> segments);
// For sizes of what ops.h calls scratch and columns.
void check_argmax(const Tensor& x, size_t scratch, size_t columns);
void check_add(const Tensor& x, const Tensor& out);

}  // namespace ocelli::kernels
