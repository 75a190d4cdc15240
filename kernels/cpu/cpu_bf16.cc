#include "kernels/cpu/cpu_bf16.h"

#include <algorithm>
#include <vector>

#include "kernels/cpu/tasks.h"
#include "kernels/op_checks.h"

namespace ocelli::kernels::cpu {
namespace {

// Fewer rows go faster one by one than in tiles.
constexpr int kFewestTiledRows = 8;
// A task in tiles: all rows, and as many panels as stay in L2, a stretch of inputs at a time.
constexpr int64_t kTaskWeightBytes = 650'000;
constexpr int64_t kStretchBytes = 80 * 1024;  // of a panel, as the kernel takes them
// Any other task: rows that fit L2 with room for weights, and a multiple of what kernels take at
// once; and at least this many weights, of which a core reads some 5 a nanosecond.
constexpr int64_t kTaskRowBytes = 1'300'000;
constexpr int kRowBlock = 12;
constexpr int kMostTaskRows = 512;
constexpr int64_t kFewestTaskWeights = 8'000;
// Tasks for each thread: if a core is taken away, the others have something left to take over.
constexpr int kTasksPerThread = 4;
// Multiplications below which a second thread costs more than it brings.
constexpr int64_t kSmallProduct = 60'000;

int round_up(int n, int multiple) {
  return ceil_div(n, multiple) * multiple;
}

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

// Rows and panels of a task.
struct TaskShape {
  int rows;
  int panels;
};

TaskShape task_shape(const Bf16Rows& x, int rows, const PairShape& shape, int threads) {
  const int tasks = threads * kTasksPerThread;
  const int64_t panel_bytes = shape.panel_values() * 2;
  if (x.tiles) {
    const auto fitting = static_cast<int>(kTaskWeightBytes / std::min(panel_bytes, kStretchBytes));
    // In pairs, as the kernel takes them.
    return {rows, std::max(2, std::min(fitting, ceil_div(shape.panels(), tasks)) / 2 * 2)};
  }
  const int fitting =
      std::clamp(static_cast<int>(kTaskRowBytes / x.stride), 2 * kRowBlock, kMostTaskRows);
  // Ranges of one size: a last one of a few rows would read all weights for those.
  const int task_rows = round_up(ceil_div(rows, ceil_div(rows, fitting)), kRowBlock);
  const int even = ceil_div(shape.panels() * ceil_div(rows, task_rows), tasks);
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
    table_.bf16.round_row(from.f32(row), x.cols, all.from(row));
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
    const int64_t scratch_bytes = rounded.tiles ? tiled_scratch(kBf16TiledRows, outputs) : 0;
    std::byte* scratch = sums_.room_for(scratch_bytes * pool_.size());
    const auto task = [&](int index, int thread) {
      const int row = index / ranges * size.rows;
      const int first = index % ranges * outputs;
      const int output = part.first_output + first;
      table_.bf16.linear(
          {rounded.from(row), part.values + first / kPanelOutputs * shape.panel_values(),
           weights.bias(output), shifted(rows_of(out), row, output),
           std::min(size.rows, x.rows - row), std::min(outputs, shape.outputs - first),
           shape.steps(), epilogue, scratch + thread * scratch_bytes});
    };
    const int64_t products = int64_t{x.rows} * shape.outputs * shape.inputs;
    each_task(pool_, ranges * ceil_div(x.rows, size.rows), products < kSmallProduct, task);
  }
}

}  // namespace ocelli::kernels::cpu
