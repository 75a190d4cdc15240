#include "kernels/op_checks.h"

#include <limits>
#include <utility>

#include "host/error.h"

namespace ocelli::kernels {
namespace {

void check_activation(const Tensor& tensor) {
  OCELLI_CHECK(tensor.dtype == DType::kF32, "an activation [{}, {}] of {}", tensor.rows,
               tensor.cols, name(tensor.dtype));
}

void check_same_shape(const Tensor& x, const Tensor& out) {
  check_activation(x);
  check_activation(out);
  OCELLI_CHECK(x.rows == out.rows && x.cols == out.cols, "[{}, {}] into [{}, {}]", x.rows, x.cols,
               out.rows, out.cols);
}

void check_norm_vector(const Tensor& vector, const Tensor& x) {
  OCELLI_CHECK(vector.rows == 1 && vector.cols == x.cols, "a norm's [{}, {}] for [{}, {}]",
               vector.rows, vector.cols, x.rows, x.cols);
}

// The rows of a segment lie in an activation of `rows` rows.
void check_segment(const Segment& s, int rows) {
  OCELLI_CHECK(s.sequence >= 0 && s.first_row >= 0 && s.rows >= 0 && s.past >= 0,
               "sequence {}, rows {} + {}, past {}", s.sequence, s.first_row, s.rows, s.past);
  OCELLI_CHECK(int64_t{s.first_row} + s.rows <= rows, "rows {} + {} of {}", s.first_row, s.rows,
               rows);
}

// A segment's positions lie in its sequence's share of keys or values, and the last head's share,
// which starts at row `last_head`, in `rows`.
void check_positions(const Segment& s, int capacity, int64_t last_head, int rows) {
  const int64_t end = int64_t{s.past} + s.rows;
  OCELLI_CHECK(end <= capacity, "position {} of {}", end - 1, capacity);
  OCELLI_CHECK(last_head + end <= rows, "sequence {} of capacity {}: row {} of {}", s.sequence,
               capacity, last_head + end - 1, rows);
}

void check_cache(const Tensor& cache) {
  OCELLI_CHECK(
      cache.dtype == DType::kF32 || cache.dtype == DType::kF16 || cache.dtype == DType::kI8,
      "a cache of {}", name(cache.dtype));
}

void check_same_cache(const Tensor& keys, const Tensor& values) {
  OCELLI_CHECK(values.dtype == keys.dtype && values.rows == keys.rows && values.cols == keys.cols,
               "keys [{}, {}] of {}, values [{}, {}] of {}", keys.rows, keys.cols, name(keys.dtype),
               values.rows, values.cols, name(values.dtype));
}

// The rows of a cache are those of some sequences: it was made for as many heads, of that capacity.
void check_whole_sequences(const Tensor& cache, int heads, int capacity) {
  OCELLI_CHECK(capacity > 0 && cache.rows % (int64_t{heads} * capacity) == 0,
               "a cache of {} rows for {} heads of {} positions", cache.rows, heads, capacity);
}

void check_weight_kind(const HostTensor& weight, const HostTensor& first) {
  const bool is_float =
      weight.dtype == DType::kF32 || weight.dtype == DType::kF16 || weight.dtype == DType::kBF16;
  OCELLI_CHECK(weight.quantised() ? weight.dtype == DType::kI8 : is_float, "{} is of {}",
               weight.name, name(weight.dtype));
  OCELLI_CHECK(weight.in_pairs() == first.in_pairs(), "{} and {}: one of them is in panels of bf16",
               first.name, weight.name);
  OCELLI_CHECK(weight.quantised() == first.quantised() && weight.group == first.group &&
                   weight.layout == first.layout && weight.factor_group == first.factor_group,
               "{} in groups of {}, {} of {}, or one of them in panels or int4", first.name,
               first.group, weight.name, weight.group);
  OCELLI_CHECK(!weight.quantised() || (weight.group > 0 && weight.group <= kLargestGroup &&
                                       weight.shape[1] > 0 && weight.shape[1] % weight.group == 0),
               "{}: groups of {} in rows of {}", weight.name, weight.group, weight.shape[1]);
}

}  // namespace

int check_linear_source(const LinearSource& source) {
  constexpr int64_t kLargest = std::numeric_limits<int>::max();
  OCELLI_CHECK(!source.weights.empty(), "a linear operation needs a weight");
  OCELLI_CHECK(source.biases.empty() || source.biases.size() == source.weights.size(),
               "{} weights, {} biases", source.weights.size(), source.biases.size());
  int64_t outputs = 0;
  for (size_t i = 0; i < source.weights.size(); ++i) {
    const HostTensor& weight = source.weights[i];
    OCELLI_CHECK(weight.shape.size() == 2 && weight.shape[1] == source.weights[0].shape[1] &&
                     weight.shape[1] <= kLargest && weight.shape[0] <= kLargest - outputs,
                 "{} is {}", weight.name, shape_text(weight.shape));
    check_weight_kind(weight, source.weights[0]);
    OCELLI_CHECK(source.biases.empty() || source.biases[i].elements() == weight.shape[0],
                 "{} is {}", source.biases[i].name, shape_text(source.biases[i].shape));
    outputs += weight.shape[0];
  }
  return static_cast<int>(outputs);
}

void check_embed(const Tensor& table, std::span<const int32_t> rows, const Tensor& out) {
  check_activation(out);
  OCELLI_CHECK(std::cmp_equal(rows.size(), out.rows) && table.cols == out.cols,
               "{} rows of [{}, {}] into [{}, {}]", rows.size(), table.rows, table.cols, out.rows,
               out.cols);
  for (const int32_t row : rows) {
    OCELLI_CHECK(row >= 0 && row < table.rows, "row {} of {}", row, table.rows);
  }
}

void check_linear(const Tensor& x, const LinearWeights& weights, const Tensor& out,
                  Epilogue epilogue) {
  if (x.dtype != DType::kBF16) check_activation(x);
  if (reads_output(epilogue) || out.dtype != DType::kBF16) check_activation(out);
  OCELLI_CHECK(x.cols == weights.inputs && out.cols == weights.outputs && x.rows == out.rows,
               "[{}, {}] by [{}, {}] into [{}, {}]", x.rows, x.cols, weights.outputs,
               weights.inputs, out.rows, out.cols);
}

void check_layer_norm(const Tensor& x, const Norm& norm, const Tensor& out) {
  check_rms_norm(x, norm, out);
  check_norm_vector(norm.bias, x);
}

void check_rms_norm(const Tensor& x, const Norm& norm, const Tensor& out) {
  check_same_shape(x, out);
  check_norm_vector(norm.weight, x);
}

void check_project(const Tensor& x, const Norm* norm, std::span<const Projection> projections,
                   const Tensor& normed) {
  if (norm && norm->bias.storage) {
    check_layer_norm(x, *norm, normed);
  } else if (norm) {
    check_rms_norm(x, *norm, normed);
  }
  for (const Projection& p : projections) {
    check_linear(x, *p.weights, p.out, p.epilogue);
    if (p.gate) check_linear(x, *p.gate, p.out, Epilogue::kMultiply);
  }
}

namespace {

// Angles for heads of `head_dim`, and for every position of segments that lie in `rows` rows.
void check_angles(const Tensor& table, int head_dim, int rows, std::span<const Segment> segments) {
  OCELLI_CHECK(table.dtype == DType::kF32 && table.cols % 2 == 0 && table.cols <= head_dim,
               "angles [{}, {}] of {} for heads of {}", table.rows, table.cols, name(table.dtype),
               head_dim);
  for (const Segment& segment : segments) {
    check_segment(segment, rows);
    const int64_t end = int64_t{segment.past} + segment.rows;
    OCELLI_CHECK(end <= table.rows, "position {} of {}", end - 1, table.rows);
  }
}

// A cache for `heads` heads, with room for what segments that lie in `rows` rows bring.
void check_room(const Tensor& cache, int heads, int capacity, int rows,
                std::span<const Segment> segments) {
  check_whole_sequences(cache, heads, capacity);
  for (const Segment& segment : segments) {
    check_segment(segment, rows);
    check_positions(segment, capacity, cache_row(heads, capacity, segment.sequence, heads - 1),
                    cache.rows);
  }
}

}  // namespace

void check_rope(const Tensor& x, int head_dim, const Tensor& table,
                std::span<const Segment> segments) {
  check_activation(x);
  OCELLI_CHECK(head_dim > 0 && x.cols % head_dim == 0, "{} columns, heads of {}", x.cols, head_dim);
  check_angles(table, head_dim, x.rows, segments);
}

void check_append(const Tensor& x, const Tensor& cache, int capacity,
                  std::span<const Segment> segments) {
  check_activation(x);
  check_cache(cache);
  const int head_dim = cache.cols - scale_columns(cache.dtype);
  OCELLI_CHECK(head_dim > 0 && x.cols > 0 && x.cols % head_dim == 0, "[{}, {}] into [{}, {}] of {}",
               x.rows, x.cols, cache.rows, cache.cols, name(cache.dtype));
  check_room(cache, x.cols / head_dim, capacity, x.rows, segments);
}

void check_qkv(const Tensor& qkv, const LayerCache& cache) {
  OCELLI_CHECK(cache.head_dim > 0 && cache.kv_heads > 0 && qkv.cols % cache.head_dim == 0 &&
                   qkv.cols / cache.head_dim >= 2 * int64_t{cache.kv_heads},
               "q, k and v [{}, {}], {} heads of {} of k and as many of v", qkv.rows, qkv.cols,
               cache.kv_heads, cache.head_dim);
}

void check_append_rotated(const Tensor& qkv, const Tensor& angles, const LayerCache& cache,
                          std::span<const Segment> segments) {
  const Tensor& keys = cache.keys;
  check_activation(qkv);
  check_qkv(qkv, cache);
  check_cache(keys);
  check_same_cache(keys, cache.values);
  OCELLI_CHECK(keys.cols == cache_columns(cache.head_dim, keys.dtype),
               "heads of {} into [{}, {}] of {}", cache.head_dim, keys.rows, keys.cols,
               name(keys.dtype));
  check_room(keys, cache.kv_heads, cache.capacity, qkv.rows, segments);
  if (angles.storage) check_angles(angles, cache.head_dim, qkv.rows, segments);
}

void check_attention(const AttentionTensors& tensors, const AttentionShape& shape,
                     std::span<const Segment> segments) {
  const auto& [q, keys, values, out] = tensors;
  check_same_shape(q, out);
  check_cache(keys);
  check_same_cache(keys, values);
  OCELLI_CHECK(shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0 && shape.scale >= 0,
               "{} heads, {} of keys, scale {}", shape.heads, shape.kv_heads, shape.scale);
  const int64_t columns = shape.cached ? cache_columns(shape.head_dim, keys.dtype)
                                       : int64_t{shape.kv_heads} * shape.head_dim;
  OCELLI_CHECK(int64_t{shape.heads} * shape.head_dim == q.cols && columns == keys.cols,
               "{} heads of {}, {} of keys: q [{}, {}], keys [{}, {}] of {}", shape.heads,
               shape.head_dim, shape.kv_heads, q.rows, q.cols, keys.rows, keys.cols,
               name(keys.dtype));
  if (shape.cached) {
    check_whole_sequences(keys, shape.kv_heads, shape.capacity);
  } else {
    check_activation(keys);
  }
  for (const Segment& segment : segments) {
    check_segment(segment, q.rows);
    check_positions(segment, shape.capacity,
                    head_place(shape, segment.sequence, shape.kv_heads - 1).row, keys.rows);
  }
}

void check_argmax(const Tensor& x, size_t scratch, size_t columns) {
  check_activation(x);
  OCELLI_CHECK(x.cols > 0 && scratch >= static_cast<size_t>(x.cols) &&
                   columns == static_cast<size_t>(x.rows),
               "[{}, {}] with scratch of {} into {} columns", x.rows, x.cols, scratch, columns);
}

void check_add(const Tensor& x, const Tensor& out) {
  check_activation(x);
  check_activation(out);
  OCELLI_CHECK(x.cols == out.cols && (x.rows > 0 ? out.rows % x.rows == 0 : out.rows == 0),
               "[{}, {}] onto [{}, {}]", x.rows, x.cols, out.rows, out.cols);
}

}  // namespace ocelli::kernels
