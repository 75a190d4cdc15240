#include "llm/layered_decoder.h"

#include <algorithm>
#include <cmath>

#include "host/error.h"
#include "llm/rope.h"

namespace ocelli::llm {

using kernels::Segment;
using kernels::Tensor;

LayeredDecoder::LayeredDecoder(kernels::Ops& ops, const DecoderConfig& config, int rotary_dims,
                               const kernels::LinearSource& last_qkv, const DecoderLimits& limits)
    : ops_(ops),
      config_(config),
      limits_(limits),
      attention_{.heads = config.num_attention_heads,
                 .kv_heads = config.num_key_value_heads,
                 .head_dim = config.head_dim(),
                 .scale = 1 / std::sqrt(static_cast<float>(config.head_dim())),
                 .causal = true,
                 .capacity = limits.capacity,
                 .precision = kernels::attention_precision(last_qkv)},
      last_kv_(ops.load_linear(last_qkv.from(1))),
      cache_(ops, kv_cache_shape(config, limits)),
      h_(activation(config.hidden_size)),
      qkv_(activation(config.hidden_size + 2 * config.kv_width())),
      context_(activation(config.hidden_size)) {
  if (rotary_dims > 0) {
    rope_ = make_rope_table(ops, limits.capacity, rotary_dims, config.rope_theta);
  }
  wanted_.reserve(limits.max_rows);
}

Tensor LayeredDecoder::activation(int cols, kernels::DType dtype) const {
  return ops_.tensor(limits_.max_rows, cols, dtype, kernels::Placement::kActivation);
}

Tensor LayeredDecoder::forward(const Tensor& x, std::span<const Segment> segments,
                               std::span<const int32_t> wanted) {
  OCELLI_CHECK(x.rows <= limits_.max_rows, "{} rows of at most {}", x.rows, limits_.max_rows);
  const Tensor h = h_.row_range(0, x.rows);
  const int last = config_.num_hidden_layers - 1;
  for (int i = 0; i < last; ++i) run_layer(i, x, h, segments);
  const int count = static_cast<int>(wanted.size());
  const bool few = 2 * count <= x.rows && !limits_.every_row;
  if (few) {
    append_last(x, h, segments);
  } else {
    run_layer(last, x, h, segments);
  }
  if (count == 0 || count == x.rows) return x.row_range(0, count);
  Tensor rows = h.row_range(0, count);
  ops_.embed(x, wanted, rows);
  if (few) {
    // It appends these rows' keys and values once more: the same ones.
    run_layer(last, rows, x.row_range(0, count), select_rows(segments, wanted, wanted_));
  }
  return rows;
}

Tensor LayeredDecoder::attend(int index, int rows, std::span<const Segment> segments) {
  const Tensor qkv = this->qkv(rows);
  const Tensor q = qkv.column_range(0, config_.hidden_size);
  Tensor context = context_.row_range(0, rows);
  cache_.append_rotated(index, qkv, rope_, segments);
  ops_.attention(q, cache_.keys(index), cache_.values(index), attention_, segments, context);
  return context;
}

void LayeredDecoder::append_last(const Tensor& x, const Tensor& h,
                                 std::span<const Segment> segments) {
  const Tensor kv = qkv(x.rows).column_range(config_.hidden_size, 2 * config_.kv_width());
  const kernels::Projection to_kv = {last_kv_, nullptr, kv};
  ops_.project(x, &last_norm(), {&to_kv, 1}, h);
  cache_.append_rotated(config_.num_hidden_layers - 1, kv, rope_, segments);
}

std::span<const Segment> select_rows(std::span<const Segment> segments,
                                     std::span<const int32_t> wanted, std::vector<Segment>& out) {
  out.clear();
  for (size_t i = 0; i < wanted.size(); ++i) {
    const int32_t row = wanted[i];
    OCELLI_CHECK(i == 0 || row > wanted[i - 1], "row {} after row {}", row, wanted[i - 1]);
    const auto from = std::ranges::find_if(segments, [&](const Segment& s) {
      return row >= s.first_row && row - s.first_row < s.rows;
    });
    OCELLI_CHECK(from != segments.end(), "row {} is in no segment", row);
    const int past = from->past + row - from->first_row;
    const bool follows = !out.empty() && out.back().sequence == from->sequence &&
                         out.back().past + out.back().rows == past;
    if (follows) {
      ++out.back().rows;
    } else {
      out.push_back({from->sequence, static_cast<int>(i), 1, past, from->sampled});
    }
  }
  return out;
}

}  // namespace ocelli::llm
