#include "kernels/cpu/cpu_linear.h"

#include <algorithm>

#include "kernels/cpu/cpu_linear_weights.h"
#include "kernels/cpu/int4_sums.h"
#include "kernels/cpu/tasks.h"
#include "kernels/op_checks.h"

namespace ocelli::kernels::cpu {
namespace {

// A task of floats: this many outputs for this many rows. The weights of a task and its rows fit L2
// together at the widths of the models (2,560: 245 KB + 655 KB).
constexpr int kTaskOutputs = 48;
constexpr int kTaskRows = 64;
// A task of int8: at most this many rows, which fit L2 with room for weights, and a multiple of
// what kernels take at once; and at least this many weights, of which a core reads some 10 a
// nanosecond.
constexpr int kInt8TaskRows = 512;
constexpr int kInt8RowBlock = 12;
constexpr int64_t kInt8TaskRowBytes = 1'300'000;
constexpr int kInt8TaskWeights = 16'000;
// So much of a matrix of int4 is made int8 at a time: it stays in L2 with the rows.
constexpr int64_t kExpandedWeights = 200'000;
// Fewer rows go faster one by one than in tiles, and with int4 as it is than made int8 first.
constexpr int kFewestTiledRows = 8;
// A task in tiles: rows of which so many bytes stay in L2 while weights pass, of so many inputs at
// a time; and at most so many panels, for the sake of the sums that wait there meanwhile.
constexpr int64_t kTiledRowBytes = 900'000;
constexpr int kTiledInputs = 2560;
constexpr int kMostTiledPanels = 16;
// Tasks for each thread: if a core is taken away, the others have something left to take over.
constexpr int kTasksPerThread = 4;
// Of a few rows, whose tasks need nothing but the weights: so many that threads end together.
constexpr int kSmallTasksPerThread = 16;
constexpr int kFewRows = 4;
// Panels that the kernels like to have at once.
constexpr int kPanelsTogether = 4;
// Multiplications below which a second thread costs more than it brings.
constexpr int64_t kSmallProduct = 40'000;
constexpr int64_t kSmallInt8Product = 100'000;

int round_up(int n, int multiple) {
  return ceil_div(n, multiple) * multiple;
}

const CpuLinear& cpu_linear(const Linear& weights) {
  return static_cast<const CpuLinear&>(*weights);
}

// A rectangle of an output: rows and outputs, the first of which is a multiple of a panel.
struct Rectangle {
  int first_row;
  int rows;
  int first_output;
  int outputs;
  std::byte* scratch;  // of its thread, as Int8Block wants it
  int next_output;     // of the rectangle that comes next, or -1
  uint8_t* expanded;   // where int4 is made int8,
  int panels;          // so many panels at a time
};

// Of part `part` of w: a rectangle of its outputs.
Int8Block block_of(const QuantisedRows& x, const CpuLinear& w, size_t part, const Rectangle& r,
                   const Rows& out, Epilogue epilogue) {
  const auto& [weight, first_output] = w.int8_parts[part];
  const int panel = r.first_output / kPanelOutputs;
  const uint8_t* next = r.next_output < 0 ? nullptr : weight.values(r.next_output / kPanelOutputs);
  const int output = first_output + r.first_output;
  return {x.from(r.first_row),
          weight.values(panel),
          weight.scales(panel),
          w.bias(output),
          shifted(out, r.first_row, output),
          r.rows,
          r.outputs,
          weight.shape().steps(),
          epilogue,
          r.scratch,
          next,
          weight.shape().factor_group / kInt4LineInputs};
}

// Computes a block, whose weights have the panels of `shape`, in a rectangle.
void multiply(const Int8Functions& functions, const Int8Block& block, const PanelShape& shape,
              const Rectangle& r) {
  if (!shape.is_int4()) return functions.linear(block);
  if (block.x.sums != nullptr) return functions.int4.linear(block);
  const int64_t panel_bytes = shape.as_int8().panel_bytes();
  const int outputs = r.panels * kPanelOutputs;
  for (int first = 0; first < r.outputs; first += outputs) {
    Int8Block part = block;
    part.outputs = std::min(outputs, r.outputs - first);
    const int panel = first / kPanelOutputs;
    for (int i = 0; i < ceil_div(part.outputs, kPanelOutputs); ++i) {
      functions.int4.expand(block.values + (panel + i) * shape.panel_bytes(), block.steps,
                            block.factor_lines, r.expanded + i * panel_bytes);
    }
    part.values = r.expanded;
    part.scales += first;
    if (block.bias) part.bias += first;
    part.out = shifted(block.out, 0, first);
    part.next = nullptr;
    functions.linear(part);
  }
}

}  // namespace

std::byte* LinearEngine::Scratch::room_for(int64_t wanted) {
  if (wanted > bytes) {
    memory = std::make_unique<HostStorage>(wanted);
    bytes = wanted;
  }
  return memory ? memory->data() : nullptr;
}

Linear LinearEngine::load(const LinearSource& source) {
  if (!source.weights.empty() && source.weights[0].in_pairs()) return bf16_.load(source);
  const auto id = static_cast<int>(followers_.size());
  auto linear = std::make_shared<CpuLinear>(table_, source, check_linear_source(source), id);
  followers_.emplace_back();
  if (!linear->int8_parts.empty() && source.weights[0].layout == Layout::kRows) {
    PackedInt8& packed = linear->int8_parts[0].weight;
    pool_.parallel_for(packed.shape().panels(),
                       [&](int panel, int) { packed.pack_panel(source, panel); });
  }
  return linear;
}

void LinearEngine::run(const Tensor& x, const Linear& weights, const Tensor& out,
                       Epilogue epilogue) {
  if (const auto* pairs = Bf16Engine::is_one(weights)) {
    return bf16_.run(x, *pairs, out, epilogue);
  }
  const CpuLinear& w = cpu_linear(weights);
  if (!w.int8_parts.empty()) {
    // All parts have the same groups.
    const QuantisedRows quantised = quantise(x, w.int8_parts[0].weight.shape());
    announce_panels(w, quantised, x.rows);
    for (size_t part = 0; part < w.int8_parts.size(); ++part) {
      const PanelShape& shape = w.int8_parts[part].weight.shape();
      each_rectangle(quantised, x.rows, shape, [&, to = rows_of(out)](const Rectangle& rectangle) {
        multiply(table_.int8, block_of(quantised, w, part, rectangle, to, epilogue), shape,
                 rectangle);
      });
    }
    return;
  }
  run_floats(x, w, nullptr, out, epilogue);
}

void LinearEngine::run_gated(const Tensor& x, const Mlp& mlp, const Tensor& out) {
  const auto both = [&] {
    run(x, mlp.fc1, out, mlp.activation);
    run(x, mlp.gate, out, Epilogue::kMultiply);
  };
  if (Bf16Engine::is_one(mlp.fc1) || Bf16Engine::is_one(mlp.gate)) return both();
  const CpuLinear& w = cpu_linear(mlp.fc1);
  const CpuLinear& gate = cpu_linear(mlp.gate);
  if (w.float_parts.size() == 1 && gate.float_parts.size() == 1) {
    run_floats(x, w, &gate, out, mlp.activation);
    return;
  }
  const bool fits = w.int8_parts.size() == 1 && gate.int8_parts.size() == 1 &&
                    w.int8_parts[0].weight.shape().has_groups_of(gate.int8_parts[0].weight.shape());
  if (!fits) return both();
  const PanelShape& shape = w.int8_parts[0].weight.shape();
  const QuantisedRows quantised = quantise(x, shape);
  announce_panels(w, quantised, x.rows);
  each_rectangle(quantised, x.rows, shape, [&, to = rows_of(out)](const Rectangle& rectangle) {
    multiply(table_.int8, block_of(quantised, w, 0, rectangle, to, mlp.activation), shape,
             rectangle);
    multiply(table_.int8, block_of(quantised, gate, 0, rectangle, to, Epilogue::kMultiply), shape,
             rectangle);
  });
}

template <typename StartOf>
void LinearEngine::announce(int id, const StartOf& start_of) {
  if (last_ >= 0 && followers_[last_].id != id) {
    Follower& follower = followers_[last_];
    follower.id = id;
    follower.starts.resize(pool_.size());
    for (int i = 0; i < pool_.size(); ++i) follower.starts[i] = start_of(i);
  }
  last_ = id;
  pool_.expect(followers_[id].starts);
}

void LinearEngine::announce_panels(const CpuLinear& w, const QuantisedRows& x, int rows) {
  announce(w.id, [&](int thread) {
    const PackedInt8& weight = w.int8_parts[0].weight;
    const TaskShape tasks = task_shape(x, rows, weight.shape());
    const int count = ceil_div(weight.shape().panels(), tasks.panels);
    const int panel = pool_.share_begin(count, thread) * tasks.panels;
    return reinterpret_cast<const std::byte*>(weight.values(panel));
  });
}

// The strip of outputs that is number `index` of a linear's floats, of all its parts.
LinearEngine::Strip LinearEngine::strip_of(const CpuLinear& w, int index) {
  size_t part = 0;
  for (; index >= ceil_div(w.float_parts[part].outputs, kTaskOutputs); ++part) {
    index -= ceil_div(w.float_parts[part].outputs, kTaskOutputs);
  }
  const CpuLinear::FloatPart& in = w.float_parts[part];
  const int first = index * kTaskOutputs;
  return {shifted(in.weight, first, 0), in.first_output + first,
          std::min(kTaskOutputs, in.outputs - first)};
}

// With a gate: a block's part of it follows, and is multiplied on.
void LinearEngine::run_floats(const Tensor& x, const CpuLinear& w, const CpuLinear* gate,
                              const Tensor& out, Epilogue epilogue) {
  int strips = 0;
  for (const CpuLinear::FloatPart& part : w.float_parts) {
    strips += ceil_div(part.outputs, kTaskOutputs);
  }
  announce(w.id,
           [&](int thread) { return strip_of(w, pool_.share_begin(strips, thread)).weight.data; });
  const auto block_of_strip = [&](const CpuLinear& of, int index, int row) {
    const Strip strip = strip_of(of, index);
    return LinearBlock{shifted(rows_of(x), row, 0),
                       strip.weight,
                       of.bias(strip.first_output),
                       shifted(rows_of(out), row, strip.first_output),
                       std::min(kTaskRows, x.rows - row),
                       of.inputs,
                       strip.outputs,
                       epilogue};
  };
  const auto task = [&](int index, int) {
    const int row = index / strips * kTaskRows;
    table_.linear(block_of_strip(w, index % strips, row));
    if (!gate) return;
    LinearBlock block = block_of_strip(*gate, index % strips, row);
    block.epilogue = Epilogue::kMultiply;
    table_.linear(block);
  };
  const int64_t products = int64_t{x.rows} * w.outputs * w.inputs;
  each_task(pool_, strips * ceil_div(x.rows, kTaskRows), products < kSmallProduct, task);
}

QuantisedRows LinearEngine::quantise(const Tensor& x, const PanelShape& panels) {
  constexpr int kLine = QuantisedRows::kLine;
  const bool whole_lines = panels.groups() == 1 || panels.steps() * kStepInputs % kLine == 0;
  const bool tiles = table_.int8.tiles && x.rows >= kFewestTiledRows && whole_lines;
  int lines = ceil_div(panels.groups() * panels.steps() * kStepInputs, kLine);
  // An odd number of lines, so that equal columns of many rows do not compete for the same few sets
  // of the cache.
  if (!tiles) lines |= 1;
  const int64_t stride = int64_t{lines} * kLine;
  const int64_t padded_rows = round_up(x.rows, kQuantisedRowBlock);
  const int64_t scale_bytes = padded_rows * panels.groups() * int64_t{sizeof(float)};
  const bool sums = panels.is_int4() && x.rows < kFewestTiledRows;
  const int sum_groups = sums ? panels.factors() : 0;
  const int64_t sum_bytes = int64_t{x.rows} * sum_groups * int64_t{sizeof(int32_t)};
  const QuantisedRows all = {reinterpret_cast<int8_t*>(values_.room_for(padded_rows * stride)),
                             reinterpret_cast<float*>(scales_.room_for(scale_bytes)),
                             reinterpret_cast<int32_t*>(corrections_.room_for(scale_bytes)),
                             stride,
                             panels.groups(),
                             tiles,
                             sums ? reinterpret_cast<int32_t*>(sums_.room_for(sum_bytes)) : nullptr,
                             sum_groups};
  each_row(pool_, x.rows, x.cols, [&, from = rows_of(x)](int row) {
    table_.int8.quantise_row(from.f32(row), x.cols, panels.group, all.from(row));
    if (sums) add_sums(all.from(row), panels);
  });
  return all;
}

LinearEngine::TaskShape LinearEngine::task_shape(const QuantisedRows& x, int rows,
                                                 const PanelShape& shape) const {
  if (x.tiles) {
    const int inputs = ceil_div(shape.inputs, ceil_div(shape.inputs, kTiledInputs));
    const int blocks = ceil_div(rows, static_cast<int>(kTiledRowBytes / inputs));
    const int even = ceil_div(shape.panels() * blocks, pool_.size() * kTasksPerThread);
    // In pairs, as the kernel takes them.
    return {round_up(ceil_div(rows, blocks), kQuantisedRowBlock),
            std::max(2, round_up(std::min(kMostTiledPanels, even), 2))};
  }
  const int fitting = std::clamp(static_cast<int>(kInt8TaskRowBytes / shape.inputs),
                                 2 * kInt8RowBlock, kInt8TaskRows);
  // Ranges of one size: a last one of a few rows would read all weights for those.
  const int task_rows = round_up(ceil_div(rows, ceil_div(rows, fitting)), kInt8RowBlock);
  const int per_thread = rows <= kFewRows ? kSmallTasksPerThread : kTasksPerThread;
  const int even = ceil_div(shape.panels() * ceil_div(rows, task_rows), pool_.size() * per_thread);
  const auto worth = static_cast<int>(kInt8TaskWeights / shape.panel_bytes() / rows) + 1;
  return {task_rows, round_up(std::max(even, worth), kPanelsTogether)};
}

template <typename Body>
void LinearEngine::each_rectangle(const QuantisedRows& x, int rows, const PanelShape& shape,
                                  const Body& body) {
  const bool expands = shape.is_int4() && x.sums == nullptr;
  const PanelShape multiplied = expands ? shape.as_int8() : shape;
  const TaskShape tasks = task_shape(x, rows, multiplied);
  const int ranges = ceil_div(shape.panels(), tasks.panels);
  const int64_t sum_bytes = x.tiles ? tiled_scratch(tasks.rows, tasks.panels * kPanelOutputs) : 0;
  const auto fitting = static_cast<int>(kExpandedWeights / multiplied.panel_bytes());
  const int panels = std::min(tasks.panels, std::max(kPanelsTogether, fitting));
  const int64_t scratch_bytes = sum_bytes + (expands ? panels * multiplied.panel_bytes() : 0);
  std::byte* scratch = scratch_.room_for(scratch_bytes * pool_.size());
  const int outputs = tasks.panels * kPanelOutputs;
  const auto task = [&](int index, int thread) {
    const int row = index / ranges * tasks.rows;
    const int output = index % ranges * outputs;
    const int next = output + outputs;
    std::byte* own = scratch + thread * scratch_bytes;
    body(Rectangle{row, std::min(tasks.rows, rows - row), output,
                   std::min(outputs, shape.outputs - output), own,
                   next + outputs <= shape.outputs ? next : -1,
                   reinterpret_cast<uint8_t*>(own + sum_bytes), panels});
  };
  const int64_t products = int64_t{rows} * shape.outputs * shape.inputs;
  each_task(pool_, ranges * ceil_div(rows, tasks.rows), products < kSmallInt8Product, task);
}

}  // namespace ocelli::kernels::cpu
