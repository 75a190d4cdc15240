#include "kernels/cpu/cpu_int8.h"

#include <algorithm>

#include "kernels/cpu/int4_sums.h"
#include "kernels/cpu/tasks.h"
#include "kernels/cpu/tiled_tasks.h"

namespace ocelli::kernels::cpu {
namespace {

// A task of rows one behind the other: at most this many rows, which fit L2 with room for weights,
// and a multiple of what kernels take at once; and at least this many weights, of which a core
// reads some 10 a nanosecond.
constexpr int kMostTaskRows = 512;
constexpr int kRowBlock = 12;
constexpr int64_t kTaskRowBytes = 1'300'000;
constexpr int kFewestTaskWeights = 24'000;
// So much of a matrix of int4 is made int8 at a time: it stays in L2 with the rows.
constexpr int64_t kExpandedWeights = 200'000;
// Of a few rows, whose tasks need nothing but the weights: so many that threads end together.
constexpr int kSmallTasksPerThread = 64;
constexpr int kFewRows = 4;
// Panels that the kernels like to have at once.
constexpr int kPanelsTogether = 4;
// Multiplications below which a second thread costs more than it brings.
constexpr int64_t kSmallProduct = 40'000;

// Whether panels of int4 are made int8 before they are multiplied.
bool expands(const PanelShape& shape, const QuantisedRows& x) {
  return shape.is_int4() && x.sums == nullptr;
}

// The panels as they are multiplied.
PanelShape multiplied(const PanelShape& shape, const QuantisedRows& x) {
  return expands(shape, x) ? shape.as_int8() : shape;
}

// So many panels of int4 are made int8 at a time.
int expanded_panels(const PanelShape& shape, int task_panels) {
  const auto fitting = static_cast<int>(kExpandedWeights / shape.as_int8().panel_bytes());
  return std::min(task_panels, std::max(kPanelsTogether, fitting));
}

}  // namespace

bool Int8Engine::share_rows(const CpuLinear& a, const CpuLinear& b) {
  // All parts of a matrix have the same groups.
  return !a.int8_parts.empty() && !b.int8_parts.empty() && a.inputs == b.inputs &&
         a.int8_parts[0].weight.shape().has_groups_of(b.int8_parts[0].weight.shape());
}

bool Int8Engine::pair_up(const CpuLinear& a, const CpuLinear& b) {
  return a.int8_parts.size() == 1 && b.int8_parts.size() == 1 && a.outputs == b.outputs;
}

void Int8Engine::project(const Tensor& x, const Norm* norm, std::span<const Product> products) {
  const Inputs& rows = inputs_[0];
  quantise(x, norm, products[0].weights->int8_parts[0].weight.shape(), inputs_[0]);
  size_t count = 0;
  for (const Product& product : products) count += product.weights->int8_parts.size();
  grids_.resize(count);
  size_t next = 0;
  for (const Product& product : products) {
    for (size_t part = 0; part < product.weights->int8_parts.size(); ++part) {
      Grid& grid = grids_[next++];
      const Rows out = rows_of(*product.out);
      grid.count = product.gate ? 2 : 1;
      grid.factors[0] = factor(rows, *product.weights, part, out);
      grid.factors[0].block.epilogue = product.epilogue;
      if (!product.gate) continue;
      grid.factors[1] = factor(rows, *product.gate, part, out);
      grid.factors[1].block.epilogue = Epilogue::kMultiply;
    }
  }
  compute(x.rows, products[0].weights->id);
}

void Int8Engine::add_both(const Addend& first, const Addend& second, const Tensor& out) {
  quantise(first.x, nullptr, first.weights.int8_parts[0].weight.shape(), inputs_[0]);
  quantise(second.x, nullptr, second.weights.int8_parts[0].weight.shape(), inputs_[1]);
  grids_.resize(1);
  Grid& grid = grids_[0];
  grid.count = 2;
  grid.factors = {factor(inputs_[0], first.weights, 0, rows_of(out)),
                  factor(inputs_[1], second.weights, 0, rows_of(out))};
  for (Factor& factor : grid.factors) factor.block.epilogue = Epilogue::kAccumulate;
  compute(out.rows, first.weights.id);
}

bool Int8Engine::are_few(int rows, const PanelShape& shape) const {
  return rows < (shape.is_int4() ? table_.int8.int4.expand_from : kFewestTiledRows);
}

// For all rows, which compute() says how many are.
Int8Engine::Factor Int8Engine::factor(const Inputs& x, const CpuLinear& weights, size_t part,
                                      const Rows& out) {
  const auto& [panels, first_output] = weights.int8_parts[part];
  const PanelShape& shape = panels.shape();
  Int8Block block;
  block.x = x.rows;
  block.values = panels.values(0);
  block.scales = panels.scales(0);
  block.bias = weights.bias(first_output);
  block.out = shifted(out, 0, first_output);
  block.outputs = shape.outputs;
  block.steps = shape.steps();
  block.factor_lines = shape.factor_group / kInt4LineInputs;
  return {block, shape, shape.panel_bytes()};
}

void Int8Engine::quantise(const Tensor& x, const Norm* norm, const PanelShape& panels,
                          Inputs& inputs) {
  constexpr int kLine = QuantisedRows::kLine;
  const bool whole_lines = panels.groups() == 1 || panels.steps() * kStepInputs % kLine == 0;
  const bool tiles = table_.int8.tiles && !are_few(x.rows, panels) && whole_lines;
  int lines = ceil_div(panels.groups() * panels.steps() * kStepInputs, kLine);
  // An odd number of lines, so that equal columns of many rows do not compete for the same few sets
  // of the cache.
  if (!tiles) lines |= 1;
  const int64_t stride = int64_t{lines} * kLine;
  const int64_t padded_rows = round_up(x.rows, kQuantisedRowBlock);
  const int64_t scale_bytes = padded_rows * panels.groups() * int64_t{sizeof(float)};
  const bool sums = panels.is_int4() && are_few(x.rows, panels);
  const int sum_groups = sums ? panels.factors() : 0;
  const int64_t bytes = int64_t{x.rows} * sum_groups * int64_t{sizeof(int32_t)};
  inputs.rows = {reinterpret_cast<int8_t*>(inputs.values.room_for(padded_rows * stride)),
                 reinterpret_cast<float*>(inputs.scales.room_for(scale_bytes)),
                 reinterpret_cast<int32_t*>(inputs.corrections.room_for(scale_bytes)),
                 stride,
                 panels.groups(),
                 tiles,
                 sums ? reinterpret_cast<int32_t*>(inputs.sums.room_for(bytes)) : nullptr,
                 sum_groups};
  const int64_t normed_floats = round_up(x.cols, kLine);
  float* normed = nullptr;
  if (norm) {
    const int64_t row_bytes = normed_floats * int64_t{sizeof(float)};
    normed = reinterpret_cast<float*>(normed_.room_for(row_bytes * pool_.size()));
  }
  each_row(pool_, x.rows, x.cols, [&, from = rows_of(x)](int row, int thread) {
    InputRow values = input_row(from, row, x);
    if (norm) {
      float* own = normed + thread * normed_floats;
      norm_row(table_, *norm, from.f32(row), x.cols, own);
      values.values = reinterpret_cast<const std::byte*>(own);
    }
    const QuantisedRows to = inputs.rows.from(row);
    table_.int8.quantise_row(values, panels.group, to);
    if (sums) add_sums(to, panels);
  });
}

// For outputs of so many panels in all that are computed together.
TaskShape Int8Engine::task_shape(const QuantisedRows& x, int rows, const PanelShape& shape,
                                 int panels) const {
  if (x.tiles) return tiled_task(rows, shape.inputs, panels, pool_.size());
  const int fitting =
      std::clamp(static_cast<int>(kTaskRowBytes / shape.inputs), 2 * kRowBlock, kMostTaskRows);
  // Ranges of one size: a last one of a few rows would read all weights for those.
  const int task_rows = round_up(ceil_div(rows, ceil_div(rows, fitting)), kRowBlock);
  const int per_thread = rows <= kFewRows ? kSmallTasksPerThread : kTasksPerThread;
  const int even = ceil_div(panels * ceil_div(rows, task_rows), pool_.size() * per_thread);
  const auto worth = static_cast<int>(kFewestTaskWeights / shape.panel_bytes() / rows) + 1;
  return {task_rows, round_up(std::max(even, worth), kPanelsTogether)};
}

void Int8Engine::plan(int rows) {
  int panels = 0;
  for (const Grid& grid : grids_) panels += grid.factors[0].shape.panels();
  int tasks = 0;
  for (Grid& grid : grids_) {
    for (int i = 0; i < grid.count; ++i) {
      Factor& factor = grid.factors[i];
      factor.block.rows = rows;
      // Of two factors, the second reads what the first one wrote.
      factor.block.past_caches =
          grid.count == 1 && goes_past_caches(rows, factor.block.outputs, factor.block.out.dtype);
      const QuantisedRows& x = factor.block.x;
      const TaskShape shape = task_shape(x, rows, multiplied(factor.shape, x), panels);
      if (i == 0) grid.tasks = shape;
      grid.tasks = {std::min(grid.tasks.rows, shape.rows),
                    std::min(grid.tasks.panels, shape.panels)};
    }
    grid.ranges = ceil_div(grid.factors[0].shape.panels(), grid.tasks.panels);
    grid.first_task = tasks;
    tasks += grid.ranges * ceil_div(rows, grid.tasks.rows);
    grid.end_task = tasks;
    plan_scratch(grid);
  }
}

void Int8Engine::announce(int id, int tasks) {
  ahead_.announce(id, [&](int thread) {
    const int task = std::min(pool_.share_begin(tasks, thread), tasks - 1);
    const Grid& grid = grid_of(task);
    const int panel = (task - grid.first_task) % grid.ranges * grid.tasks.panels;
    const Factor& factor = grid.factors[0];
    return reinterpret_cast<const std::byte*>(factor.block.values + panel * factor.panel_bytes);
  });
}

const Int8Engine::Grid& Int8Engine::grid_of(int task) const {
  const Grid* grid = grids_.data();
  while (task >= grid->end_task) ++grid;
  return *grid;
}

void Int8Engine::plan_scratch(Grid& grid) const {
  const bool tiles = grid.factors[0].block.x.tiles || grid.factors[grid.count - 1].block.x.tiles;
  grid.sum_bytes = tiles ? tiled_scratch(grid.tasks.rows, grid.tasks.panels * kPanelOutputs) : 0;
  int64_t expanded = 0;
  for (int i = 0; i < grid.count; ++i) {
    const PanelShape& shape = grid.factors[i].shape;
    if (!expands(shape, grid.factors[i].block.x)) continue;
    expanded = std::max(expanded,
                        expanded_panels(shape, grid.tasks.panels) * shape.as_int8().panel_bytes());
  }
  grid.scratch_bytes = grid.sum_bytes + expanded;
}

void Int8Engine::compute(int rows, int id) {
  plan(rows);
  const int tasks = grids_.back().end_task;
  announce(id, tasks);
  int64_t products = 0;
  int64_t bytes = 0;
  for (const Grid& grid : grids_) {
    bytes = std::max(bytes, grid.scratch_bytes);
    for (int i = 0; i < grid.count; ++i) {
      const PanelShape& shape = grid.factors[i].shape;
      products += int64_t{rows} * shape.outputs * shape.inputs;
    }
  }
  std::byte* scratch = scratch_.room_for(bytes * pool_.size());
  for (Grid& grid : grids_) {
    grid.scratch = scratch;
    grid.scratch_bytes = bytes;
  }
  each_task(pool_, tasks, products < kSmallProduct, turn_);
}

void Int8Engine::run_task(int index, int thread) const {
  const Grid& grid = grid_of(index);
  const int in_grid = index - grid.first_task;
  const int row = in_grid / grid.ranges * grid.tasks.rows;
  const int range = in_grid % grid.ranges;
  const int panel = range * grid.tasks.panels;
  const int first = panel * kPanelOutputs;
  std::byte* scratch = grid.scratch + thread * grid.scratch_bytes;
  for (int i = 0; i < grid.count; ++i) {
    const Factor& factor = grid.factors[i];
    Int8Block block = factor.block;
    block.x = block.x.from(row);
    block.values += panel * factor.panel_bytes;
    block.scales += int64_t{first} * block.x.groups;
    if (block.bias) block.bias += first;
    block.out = shifted(block.out, row, first);
    block.rows = std::min(grid.tasks.rows, block.rows - row);
    block.outputs = std::min(grid.tasks.panels * kPanelOutputs, block.outputs - first);
    block.scratch = scratch;
    // What is read next, by the next factor or by the next task, where it is as much as this.
    const bool last = i + 1 == grid.count;
    const int next = last ? panel + grid.tasks.panels : panel;
    const Factor& next_factor = grid.factors[last ? 0 : i + 1];
    if (next + grid.tasks.panels <= next_factor.shape.panels()) {
      block.next = next_factor.block.values + next * next_factor.panel_bytes;
    }
    multiply(block, factor.shape, scratch + grid.sum_bytes);
  }
}

// With int4 made int8 in `expanded`, some panels at a time, where there are many rows.
void Int8Engine::multiply(const Int8Block& block, const PanelShape& shape,
                          std::byte* expanded) const {
  const Int8Functions& functions = table_.int8;
  if (!shape.is_int4()) return functions.linear(block);
  if (!expands(shape, block.x)) return functions.int4.linear(block);
  auto* values = reinterpret_cast<uint8_t*>(expanded);
  const int64_t panel_bytes = shape.as_int8().panel_bytes();
  const int outputs =
      expanded_panels(shape, ceil_div(block.outputs, kPanelOutputs)) * kPanelOutputs;
  for (int first = 0; first < block.outputs; first += outputs) {
    Int8Block part = block;
    part.outputs = std::min(outputs, block.outputs - first);
    const int panel = first / kPanelOutputs;
    for (int i = 0; i < ceil_div(part.outputs, kPanelOutputs); ++i) {
      functions.int4.expand(block.values + (panel + i) * shape.panel_bytes(), block.steps,
                            block.factor_lines, values + i * panel_bytes);
    }
    part.values = values;
    part.scales += first;
    if (block.bias) part.bias += first;
    part.out = shifted(block.out, 0, first);
    part.next = nullptr;
    functions.linear(part);
  }
}

}  // namespace ocelli::kernels::cpu
