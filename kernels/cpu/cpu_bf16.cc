#include "kernels/cpu/cpu_bf16.h"

#include <algorithm>
#include <vector>

#include "kernels/cpu/tasks.h"
#include "kernels/cpu/tiled_tasks.h"
#include "kernels/op_checks.h"

namespace ocelli::kernels::cpu {
namespace {

// A task of rows one behind the other: they fit L2 with room for weights, and a multiple of what
// kernels take at once; and at least this many weights, of which a core reads some 5 a nanosecond.
constexpr int64_t kTaskRowBytes = 1'300'000;
constexpr int kRowBlock = 12;
constexpr int kMostTaskRows = 512;
constexpr int64_t kFewestTaskWeights = 8'000;
// Multiplications below which a second thread costs more than it brings.
constexpr int64_t kSmallProduct = 60'000;

}  // namespace

class Bf16Linear : public LinearWeights {
 public:
  struct Part {
    PairShape shape;
    const uint16_t* values;
    int first_output;
  };

  Bf16Linear(const KernelTable& table, const LinearSource& source, int output_count)
      : LinearWeights(static_cast<int>(source.weights[0].shape[1]), output_count) {
    add_panels(source);
    if (!source.biases.empty()) bias_.resize(output_count);
    float* bias = bias_.data();
    for (const HostTensor& part : source.biases) {
      table.to_f32(part.dtype, part.data, static_cast<int>(part.elements()), bias);
      bias += part.elements();
    }
  }

  const std::vector<Part>& parts() const { return parts_; }
  const float* bias(int output) const { return bias_.empty() ? nullptr : bias_.data() + output; }

 private:
  // Matrices whose panels follow one another, without outputs that stand for none between them,
  // are one.
  void add_panels(const LinearSource& source) {
    int first = 0;
    for (size_t i = 0; i < source.weights.size();) {
      const std::byte* data = source.weights[i].data;
      PairShape shape = source.weights[i].pair_shape();
      for (++i; i < source.weights.size() && shape.outputs % kPanelOutputs == 0; ++i) {
        if (source.weights[i].data != data + shape.value_bytes()) break;
        shape.outputs += static_cast<int>(source.weights[i].shape[0]);
      }
      parts_.push_back({shape, reinterpret_cast<const uint16_t*>(data), first});
      first += shape.outputs;
    }
  }

  std::vector<Part> parts_;
  std::vector<float> bias_;
};

namespace {

TaskShape task_shape(const Bf16Rows& x, int rows, const PairShape& shape, int threads) {
  if (x.tiles) {
    return tiled_task(rows, static_cast<int>(x.stride), shape.panels(), threads);
  }
  const int fitting =
      std::clamp(static_cast<int>(kTaskRowBytes / x.stride), 2 * kRowBlock, kMostTaskRows);
  // Ranges of one size: a last one of a few rows would read all weights for those.
  const int task_rows = round_up(ceil_div(rows, ceil_div(rows, fitting)), kRowBlock);
  const int even = ceil_div(shape.panels() * ceil_div(rows, task_rows), threads * kTasksPerThread);
  const auto worth = static_cast<int>(kFewestTaskWeights / shape.panel_values() / rows) + 1;
  return {task_rows, std::max(even, worth)};
}

}  // namespace

Linear Bf16Engine::load(const LinearSource& source) const {
  return std::make_shared<Bf16Linear>(table_, source, check_linear_source(source));
}

const Bf16Linear* Bf16Engine::is_one(const Linear& linear) {
  return dynamic_cast<const Bf16Linear*>(linear.get());
}

Bf16Rows Bf16Engine::round(const Tensor& x) {
  constexpr int kLine = QuantisedRows::kLine;
  const bool tiles = table_.bf16.tiles && x.rows >= kFewestTiledRows;
  int lines = ceil_div(x.cols, kLine / (tiles ? 2 : 4));
  // An odd number of lines, so that equal columns of many rows do not compete for the same few sets
  // of the cache.
  if (!tiles) lines |= 1;
  const int64_t stride = int64_t{lines} * kLine;
  const Bf16Rows all = {values_.room_for(round_up(x.rows, kQuantisedRowBlock) * stride), stride,
                        tiles};
  each_row(pool_, x.rows, x.cols, [&, from = rows_of(x)](int row) {
    table_.bf16.round_row(input_row(from, row, x), all.from(row));
  });
  return all;
}

void Bf16Engine::run(const Tensor& x, const Bf16Linear& weights, const Tensor& out,
                     Epilogue epilogue) {
  const Bf16Rows rounded = round(x);
  for (const Bf16Linear::Part& part : weights.parts()) {
    const PairShape& shape = part.shape;
    const TaskShape size = task_shape(rounded, x.rows, shape, pool_.size());
    const int ranges = ceil_div(shape.panels(), size.panels);
    const int outputs = size.panels * kPanelOutputs;
    const int64_t scratch_bytes = rounded.tiles ? tiled_scratch(size.rows, outputs) : 0;
    std::byte* scratch = sums_.room_for(scratch_bytes * pool_.size());
    const auto task = [&](int index, int thread) {
      const int row = index / ranges * size.rows;
      const int first = index % ranges * outputs;
      Bf16Block block;
      block.x = rounded.from(row);
      block.weights = part.values + first / kPanelOutputs * shape.panel_values();
      block.bias = weights.bias(part.first_output + first);
      block.out = shifted(rows_of(out), row, part.first_output + first);
      block.rows = std::min(size.rows, x.rows - row);
      block.outputs = std::min(outputs, shape.outputs - first);
      block.steps = shape.steps();
      block.epilogue = epilogue;
      block.scratch = scratch + thread * scratch_bytes;
      if (first + 2 * outputs <= shape.outputs) {
        block.next = block.weights + size.panels * shape.panel_values();
      }
      block.past_caches = goes_past_caches(x.rows, shape.outputs, out.dtype);
      table_.bf16.linear(block);
    };
    const int64_t products = int64_t{x.rows} * shape.outputs * shape.inputs;
    each_task(pool_, ranges * ceil_div(x.rows, size.rows), products < kSmallProduct, task);
  }
}

}  // namespace ocelli::kernels::cpu
