#include "kernels/cpu/cpu_linear.h"

#include <algorithm>
#include <optional>

#include "kernels/cpu/tasks.h"
#include "kernels/op_checks.h"

namespace ocelli::kernels::cpu {
namespace {

// A task of floats: this many outputs for this many rows. The weights of a task and its rows fit L2
// together at the widths of the models (2,560: 245 KB + 655 KB).
constexpr int kTaskOutputs = 48;
constexpr int kTaskRows = 64;
// A task of int8: at most this many rows, which fit L2 with room for weights; and at least this
// many weights, of which a core reads some 10 a nanosecond.
constexpr int kInt8TaskRows = 256;
constexpr int64_t kInt8TaskRowBytes = 1'300'000;
constexpr int kInt8TaskWeights = 16'000;
// Tasks for each thread: if a core is taken away, the others have something left to take over.
constexpr int kTasksPerThread = 4;
// Multiplications below which a second thread costs more than it brings.
constexpr int64_t kSmallProduct = 40'000;
constexpr int64_t kSmallInt8Product = 100'000;

int round_up(int n, int multiple) {
  return ceil_div(n, multiple) * multiple;
}

}  // namespace

// Matrices of floats stay where the checkpoint mapped them, quantised ones are packed; biases
// become fp32.
class CpuLinear : public LinearWeights {
 public:
  struct Part {
    Rows weight;
    int first_output;
    int outputs;
  };

  CpuLinear(const KernelTable& table, const LinearSource& source, int output_count)
      : LinearWeights(static_cast<int>(source.weights[0].shape[1]), output_count) {
    if (!source.biases.empty()) bias_.resize(output_count);
    if (source.weights[0].quantised()) packed.emplace(source, output_count);
    int first = 0;
    for (size_t i = 0; i < source.weights.size(); ++i) {
      const HostTensor& weight = source.weights[i];
      const int count = static_cast<int>(weight.shape[0]);
      if (!packed) {
        auto* data = const_cast<std::byte*>(weight.data);
        parts_.push_back({{data, inputs, weight.dtype}, first, count});
      }
      if (!source.biases.empty()) {
        table.to_f32(source.biases[i].dtype, source.biases[i].data, count, bias_.data() + first);
      }
      first += count;
    }
  }

  std::optional<PackedInt8> packed;

  // Of floats; empty where the matrix is packed.
  const std::vector<Part>& parts() const { return parts_; }
  const float* bias(int output) const { return bias_.empty() ? nullptr : bias_.data() + output; }

 private:
  std::vector<Part> parts_;
  std::vector<float> bias_;
};

namespace {

const CpuLinear& cpu_linear(const Linear& weights) {
  return static_cast<const CpuLinear&>(*weights);
}

// A rectangle of an output: rows and outputs, the first of which is a multiple of a panel.
struct Rectangle {
  int first_row;
  int rows;
  int first_output;
  int outputs;
};

Int8Block block_of(const QuantisedRows& x, const CpuLinear& w, const Rectangle& r, const Rows& out,
                   Epilogue epilogue) {
  const int panel = r.first_output / kPanelOutputs;
  return {x.from(r.first_row),
          w.packed->values(panel),
          w.packed->scales(panel),
          w.bias(r.first_output),
          shifted(out, r.first_row, r.first_output),
          r.rows,
          r.outputs,
          w.packed->steps(),
          epilogue};
}

}  // namespace

std::byte* LinearEngine::Scratch::room_for(int64_t wanted) {
  if (wanted > bytes) {
    memory = std::make_unique<HostStorage>(wanted);
    bytes = wanted;
  }
  return memory->data();
}

Linear LinearEngine::load(const LinearSource& source) {
  auto linear = std::make_shared<CpuLinear>(table_, source, check_linear_source(source));
  if (linear->packed) {
    pool_.parallel_for(linear->packed->panels(),
                       [&](int panel, int) { linear->packed->pack_panel(source, panel); });
  }
  return linear;
}

void LinearEngine::run(const Tensor& x, const Linear& weights, const Tensor& out,
                       Epilogue epilogue) {
  const CpuLinear& w = cpu_linear(weights);
  if (w.packed) {
    const QuantisedRows quantised = quantise(x, *w.packed);
    each_rectangle(x.rows, w, [&, to = rows_of(out)](const Rectangle& rectangle) {
      table_.int8.linear(block_of(quantised, w, rectangle, to, epilogue));
    });
    return;
  }
  for (const CpuLinear::Part& part : w.parts()) {
    run_floats({rows_of(x), part.weight, w.bias(part.first_output),
                shifted(rows_of(out), 0, part.first_output), x.rows, w.inputs, part.outputs,
                epilogue});
  }
}

void LinearEngine::run_gated(const Tensor& x, const Mlp& mlp, const Tensor& out) {
  const CpuLinear& w = cpu_linear(mlp.fc1);
  const CpuLinear& gate = cpu_linear(mlp.gate);
  if (!w.packed || !gate.packed || w.packed->group() != gate.packed->group()) {
    run(x, mlp.fc1, out, mlp.activation);
    run(x, mlp.gate, out, Epilogue::kMultiply);
    return;
  }
  const QuantisedRows quantised = quantise(x, *w.packed);
  each_rectangle(x.rows, w, [&, to = rows_of(out)](const Rectangle& rectangle) {
    table_.int8.linear(block_of(quantised, w, rectangle, to, mlp.activation));
    table_.int8.linear(block_of(quantised, gate, rectangle, to, Epilogue::kMultiply));
  });
}

void LinearEngine::run_floats(const LinearBlock& whole) {
  const int strips = ceil_div(whole.outputs, kTaskOutputs);
  const int row_blocks = ceil_div(whole.rows, kTaskRows);
  const auto task = [&](int index, int) {
    const int strip = index % strips * kTaskOutputs;
    const int row = index / strips * kTaskRows;
    LinearBlock block = whole;
    block.x = shifted(whole.x, row, 0);
    block.weight = shifted(whole.weight, strip, 0);
    block.bias = whole.bias ? whole.bias + strip : nullptr;
    block.out = shifted(whole.out, row, strip);
    block.rows = std::min(kTaskRows, whole.rows - row);
    block.outputs = std::min(kTaskOutputs, whole.outputs - strip);
    table_.linear(block);
  };
  const int64_t products = int64_t{whole.rows} * whole.outputs * whole.inputs;
  each_task(pool_, strips * row_blocks, products < kSmallProduct, task);
}

QuantisedRows LinearEngine::quantise(const Tensor& x, const PackedInt8& weights) {
  constexpr int kLineBytes = 64;
  // Whole lines and an odd number of them, so that equal columns of many rows do not compete for
  // the same few sets of the cache.
  const int lines = ceil_div(weights.groups() * weights.steps() * kStepInputs, kLineBytes);
  const int64_t stride = int64_t{lines | 1} * kLineBytes;
  const int64_t padded_rows = round_up(x.rows, kQuantisedRowBlock);
  const int64_t scale_bytes = padded_rows * weights.groups() * int64_t{sizeof(float)};
  const QuantisedRows all = {reinterpret_cast<int8_t*>(values_.room_for(padded_rows * stride)),
                             reinterpret_cast<float*>(scales_.room_for(scale_bytes)),
                             reinterpret_cast<int32_t*>(corrections_.room_for(scale_bytes)), stride,
                             weights.groups()};
  each_row(pool_, x.rows, x.cols, [&, from = rows_of(x)](int row) {
    table_.int8.quantise_row(from.f32(row), x.cols, weights.group(), all.from(row));
  });
  return all;
}

template <typename Body>
void LinearEngine::each_rectangle(int rows, const CpuLinear& weights, const Body& body) {
  const PackedInt8& packed = *weights.packed;
  const auto fitting = static_cast<int>(kInt8TaskRowBytes / weights.inputs);
  const int task_rows = std::clamp(fitting / kQuantisedRowBlock * kQuantisedRowBlock,
                                   kQuantisedRowBlock, kInt8TaskRows);
  const int row_blocks = ceil_div(rows, task_rows);
  const int even = ceil_div(packed.panels() * row_blocks, pool_.size() * kTasksPerThread);
  const auto worth = static_cast<int>(kInt8TaskWeights / packed.panel_bytes() / rows) + 1;
  const int panels = std::max(even, worth);
  const int ranges = ceil_div(packed.panels(), panels);
  const auto task = [&](int index, int) {
    const int first_row = index / ranges * task_rows;
    const int first_output = index % ranges * panels * kPanelOutputs;
    body(Rectangle{first_row, std::min(task_rows, rows - first_row), first_output,
                   std::min(panels * kPanelOutputs, weights.outputs - first_output)});
  };
  const int64_t products = int64_t{rows} * weights.outputs * weights.inputs;
  each_task(pool_, ranges * row_blocks, products < kSmallInt8Product, task);
}

}  // namespace ocelli::kernels::cpu
