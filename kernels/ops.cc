#include "kernels/ops.h"

#include <algorithm>

#include "host/error.h"
#include "kernels/first_maximum.h"
#include "kernels/op_checks.h"

namespace ocelli::kernels {

LinearSource LinearSource::from(size_t count) const {
  OCELLI_CHECK(count < weights.size(), "from matrix {} of {} on", count, weights.size());
  LinearSource rest = *this;
  const auto drop = [&](std::vector<HostTensor>& list) {
    if (!list.empty()) list.erase(list.begin(), list.begin() + static_cast<ptrdiff_t>(count));
  };
  drop(rest.weights);
  drop(rest.biases);
  return rest;
}

Precision attention_precision(const LinearSource& qkv) {
  const bool rounded = std::ranges::all_of(
      qkv.weights, [](const HostTensor& w) { return w.quantised() || w.in_pairs(); });
  return rounded ? Precision::kReduced : Precision::kExact;
}

DType Ops::input_dtype(const Linear&) const {
  return DType::kF32;
}

void Ops::argmax(const Tensor& x, std::span<float> scratch, std::span<int32_t> columns) {
  check_argmax(x, scratch.size(), columns.size());
  const auto row = scratch.first(x.cols);
  for (int r = 0; r < x.rows; ++r) {
    read(x.row_range(r, 1), row);
    columns[r] = first_maximum(row);
  }
}

void Ops::project(const Tensor& x, const Norm* norm, std::span<const Projection> projections,
                  const Tensor& normed) {
  if (norm) normalise(x, *norm, normed);
  const Tensor& rows = norm ? normed : x;
  for (const Projection& p : projections) {
    linear(rows, p.weights, p.out, p.epilogue);
    if (p.gate) linear(rows, p.gate, p.out, Epilogue::kMultiply);
  }
}

void Ops::linear_sum(std::span<const Term> terms, const Tensor& out) {
  for (const Term& term : terms) linear(term.x, term.weights, out, Epilogue::kAccumulate);
}

void Ops::append_rotated(const Tensor& qkv, const Tensor& angles, const LayerCache& cache,
                         std::span<const Segment> segments) {
  check_qkv(qkv, cache);
  const int kv_width = cache.kv_heads * cache.head_dim;
  const int v = qkv.cols - kv_width;
  if (angles.storage) rope(qkv.column_range(0, v), cache.head_dim, angles, segments);
  append(qkv.column_range(v - kv_width, kv_width), cache.keys, cache.capacity, segments);
  append(qkv.column_range(v, kv_width), cache.values, cache.capacity, segments);
}

void Ops::normalise(const Tensor& x, const Norm& norm, const Tensor& out) {
  if (norm.bias.storage) {
    layer_norm(x, norm, out);
  } else {
    rms_norm(x, norm, out);
  }
}

}  // namespace ocelli::kernels
