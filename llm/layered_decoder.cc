#include "llm/layered_decoder.h"

#include <algorithm>

#include "host/error.h"

namespace ocelli::llm {

using kernels::Segment;
using kernels::Tensor;

LayeredDecoder::LayeredDecoder(kernels::Ops& ops, const DecoderConfig& config,
                               const DecoderLimits& limits)
    : ops_(ops),
      limits_(limits),
      layers_(config.num_hidden_layers),
      h_(ops.tensor(limits.max_rows, config.hidden_size, kernels::DType::kF32,
                    kernels::Placement::kActivation)) {
  wanted_.reserve(limits.max_rows);
}

Tensor LayeredDecoder::forward(const Tensor& x, std::span<const Segment> segments,
                               std::span<const int32_t> wanted) {
  OCELLI_CHECK(x.rows <= limits_.max_rows, "{} rows of at most {}", x.rows, limits_.max_rows);
  const Tensor h = h_.row_range(0, x.rows);
  for (int i = 0; i + 1 < layers_; ++i) run_layer(i, x, h, segments);
  const int last = layers_ - 1;
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
