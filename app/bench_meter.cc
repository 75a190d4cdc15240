#include "app/bench_meter.h"

#include <algorithm>

namespace ocelli::app {

using kernels::AttentionShape;
using kernels::DType;
using kernels::Epilogue;
using kernels::HostTensor;
using kernels::Linear;
using kernels::LinearSource;
using kernels::Norm;
using kernels::Placement;
using kernels::Projection;
using kernels::Segment;
using kernels::Tensor;
using kernels::Term;

namespace {

int64_t stored_bytes(const HostTensor& tensor) {
  const int64_t scales = tensor.quantised() ? tensor.elements() / tensor.group : 0;
  return tensor.bytes() + scales * int64_t{sizeof(float)};
}

int64_t stored_bytes(const Tensor& tensor) {
  return int64_t{tensor.rows} * tensor.cols * kernels::bytes_per_element(tensor.dtype);
}

Arithmetic arithmetic_of(const HostTensor& weight) {
  if (weight.quantised()) return Arithmetic::kInt8;
  return weight.dtype == DType::kBF16 ? Arithmetic::kBf16 : Arithmetic::kF32;
}

std::string format_of(const HostTensor& weight) {
  if (!weight.quantised()) return kernels::name(weight.dtype);
  if (weight.factor_group > 0) return "int4";
  return weight.group == weight.shape.back() ? "int8" : "q8_0";
}

}  // namespace

Arithmetic Work::arithmetic() const {
  return static_cast<Arithmetic>(std::ranges::max_element(ops_in) - ops_in.begin());
}

std::string MeteredOps::weight_format() const {
  const auto most = std::ranges::max_element(
      format_bytes_, [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == format_bytes_.end() ? "none" : most->first;
}

Linear MeteredOps::load_linear(const LinearSource& source) {
  Linear linear = inner().load_linear(source);
  Footprint footprint = {0, arithmetic_of(source.weights[0])};
  for (const auto* tensors : {&source.weights, &source.biases}) {
    for (const HostTensor& tensor : *tensors) footprint.bytes += stored_bytes(tensor);
  }
  format_bytes_[format_of(source.weights[0])] += footprint.bytes;
  footprints_.emplace(linear.get(), footprint);
  return linear;
}

Tensor MeteredOps::tensor(int rows, int cols, DType dtype, Placement placement) {
  Tensor made = inner().tensor(rows, cols, dtype, placement);
  if (placement == Placement::kKeys || placement == Placement::kValues) {
    caches_.push_back(made);
    cache_storage_.insert(made.storage.get());
  }
  return made;
}

void MeteredOps::linear(const Tensor& x, const Linear& weights, const Tensor& out,
                        Epilogue epilogue) {
  if (counting_) count_product(x.rows, weights);
  inner().linear(x, weights, out, epilogue);
}

void MeteredOps::layer_norm(const Tensor& x, const Norm& norm, const Tensor& out) {
  if (counting_) count_norm(norm);
  inner().layer_norm(x, norm, out);
}

void MeteredOps::rms_norm(const Tensor& x, const Norm& norm, const Tensor& out) {
  if (counting_) count_norm(norm);
  inner().rms_norm(x, norm, out);
}

void MeteredOps::attention(const Tensor& q, const Tensor& keys, const Tensor& values,
                           const AttentionShape& shape, std::span<const Segment> segments,
                           const Tensor& out) {
  if (counting_) count_attention(keys, shape, segments);
  inner().attention(q, keys, values, shape, segments, out);
}

void MeteredOps::project(const Tensor& x, const Norm* norm, std::span<const Projection> projections,
                         const Tensor& normed) {
  if (counting_) {
    if (norm) count_norm(*norm);
    for (const Projection& p : projections) {
      count_product(x.rows, p.weights);
      if (p.gate) count_product(x.rows, p.gate);
    }
  }
  inner().project(x, norm, projections, normed);
}

void MeteredOps::linear_sum(std::span<const Term> terms, const Tensor& out) {
  if (counting_) {
    for (const Term& term : terms) count_product(out.rows, term.weights);
  }
  inner().linear_sum(terms, out);
}

void MeteredOps::count_product(int rows, const Linear& weights) {
  const Footprint& footprint = footprints_.at(weights.get());
  const int64_t ops = 2 * int64_t{rows} * weights->inputs * weights->outputs;
  work_.bytes += footprint.bytes;
  count_ops(ops, footprint.arithmetic);
}

void MeteredOps::count_ops(int64_t ops, Arithmetic arithmetic) {
  work_.ops += ops;
  work_.ops_in[static_cast<size_t>(arithmetic)] += ops;
}

void MeteredOps::count_norm(const Norm& norm) {
  work_.bytes += stored_bytes(norm.weight) + stored_bytes(norm.bias);
}

void MeteredOps::count_attention(const Tensor& keys, const AttentionShape& shape,
                                 std::span<const Segment> segments) {
  const bool cached = cache_storage_.contains(keys.storage.get());
  const int64_t position_bytes =
      int64_t{shape.kv_heads} * keys.cols * kernels::bytes_per_element(keys.dtype);
  for (const Segment& s : segments) {
    const int64_t visible = int64_t{s.past} + s.rows;
    // Pairs of a query and a key that it sees.
    const int64_t pairs = shape.causal
                              ? int64_t{s.rows} * s.past + (int64_t{s.rows} + 1) * s.rows / 2
                              : int64_t{s.rows} * visible;
    const bool reduced = shape.precision == kernels::Precision::kReduced && !s.sampled;
    // With keys, and with values.
    count_ops(2 * 2 * pairs * shape.heads * shape.head_dim,
              reduced ? Arithmetic::kBf16 : Arithmetic::kF32);
    if (cached) work_.bytes += 2 * visible * position_bytes;
  }
}

}  // namespace ocelli::app
