#include "kernels/cpu/cpu_attention.h"

#include <algorithm>

#include "kernels/cpu/tasks.h"

namespace ocelli::kernels::cpu {
namespace {

// Multiplications of q and keys below which a second thread costs more than it brings.
constexpr int64_t kSmallAttention = 15'000;
// Below this a block of rows spends too much of its time on packing keys.
constexpr int kFewestRows = 32;

constexpr int64_t whole_lines(int64_t floats) {
  return (floats + 15) / 16 * 16;
}

float* room_for_floats(Scratch& scratch, int64_t floats) {
  return reinterpret_cast<float*>(scratch.room_for(floats * int64_t{sizeof(float)}));
}

}  // namespace

bool AttentionEngine::is_reduced(const AttentionShape& shape, const Segment& segment) const {
  return shape.precision == Precision::kReduced && !segment.sampled &&
         table_.attention_reduced != nullptr;
}

int AttentionEngine::heads_per_task(const AttentionShape& shape, const Segment& segment) const {
  const int group = shape.heads / shape.kv_heads;
  return segment.rows == 1 && group <= kFewQueries ? group : 1;
}

// A segment's rows in equal blocks, but for whole groups of a tile.
int AttentionEngine::rows_per_task(const AttentionShape& shape, const Segment& segment) const {
  // Keys are packed for each block of rows anew, which costs more where they are split.
  const int most = is_reduced(shape, segment) ? rows_per_task_ * (kReducedRows / kAttentionRows)
                                              : rows_per_task_;
  const int blocks = std::max(1, ceil_div(segment.rows, most));
  const int groups = ceil_div(ceil_div(segment.rows, blocks), kAttentionPadding);
  return std::max(1, groups) * kAttentionPadding;
}

int AttentionEngine::tasks_of(const AttentionShape& shape, const Segment& segment) const {
  return ceil_div(segment.rows, rows_per_task(shape, segment)) *
         (shape.heads / heads_per_task(shape, segment));
}

void AttentionEngine::plan(const Call& call) {
  rows_per_task_ = kAttentionRows;
  while (true) {
    first_task_.assign(1, 0);
    for (const Segment& segment : call.segments) {
      first_task_.push_back(first_task_.back() + tasks_of(call.shape, segment));
    }
    // Several tasks a thread: one that comes late waits for part of the work, not for half of it.
    if (first_task_.back() >= 8 * pool_.size() || rows_per_task_ <= kFewestRows) return;
    rows_per_task_ /= 2;
  }
}

int AttentionEngine::segment_of(int task) const {
  const auto after = std::upper_bound(first_task_.begin(), first_task_.end(), task);
  return static_cast<int>(after - first_task_.begin()) - 1;
}

AttentionBlock AttentionEngine::block_of(const Call& call, int index) const {
  const int which = segment_of(index);
  const Segment& segment = call.segments[which];
  const AttentionShape& shape = call.shape;
  const int group = heads_per_task(shape, segment);
  const int in_segment = index - first_task_[which];
  const int head = in_segment % (shape.heads / group) * group;
  // The last rows see the most keys: they come first, and short tasks fill the gaps at the end.
  const int rows = rows_per_task(shape, segment);
  const int blocks = ceil_div(segment.rows, rows);
  const int row = (blocks - 1 - in_segment / (shape.heads / group)) * rows;
  const HeadPlace kv = head_place(shape, segment.sequence, head / (shape.heads / shape.kv_heads));
  AttentionBlock block;
  block.q = shifted(rows_of(call.tensors.q), segment.first_row + row, head * shape.head_dim);
  block.keys = shifted(rows_of(call.tensors.keys), kv.row, kv.col);
  block.values = shifted(rows_of(call.tensors.values), kv.row, kv.col);
  block.out = shifted(rows_of(call.tensors.out), segment.first_row + row, head * shape.head_dim);
  block.rows = std::min(rows, segment.rows - row);
  block.head_dim = shape.head_dim;
  block.first_visible = segment.past + (shape.causal ? row + 1 : segment.rows);
  block.visible_step = shape.causal ? 1 : 0;
  block.scale = shape.scale;
  if (group > 1) {
    block.rows = group;
    block.visible_step = 0;
    block.q.stride = shape.head_dim;
    block.out.stride = shape.head_dim;
  }
  return block;
}

void AttentionEngine::run(const AttentionTensors& tensors, const AttentionShape& shape,
                          std::span<const Segment> segments) {
  const Call call = {tensors, shape, segments};
  plan(call);
  int64_t products = 0;
  int most_rows = 0;
  int most_visible = 0;
  bool reduced = false;
  for (const Segment& segment : segments) {
    const int visible = segment.past + segment.rows;
    products += int64_t{segment.rows} * visible * tensors.q.cols;
    most_rows = std::max(most_rows, segment.rows);
    most_visible = std::max(most_visible, visible);
    reduced = reduced || is_reduced(shape, segment);
  }
  const bool small = products < kSmallAttention;
  const int parts = ceil_div(most_visible, kKeyBlock);
  if (!small && !reduced && most_rows <= kFewQueries && first_task_.back() < 2 * pool_.size() &&
      pool_.size() > 1 && parts > 1 && table_.attention_part) {
    run_split(call, parts);
    return;
  }
  const int64_t exact_floats = attention_scratch(shape.head_dim, shape.capacity);
  const int64_t floats =
      whole_lines(reduced ? std::max(exact_floats, reduced_scratch(shape.head_dim)) : exact_floats);
  float* scratch = room_for_floats(scratch_, floats * pool_.size());
  each_task(pool_, first_task_.back(), small, [&](int index, int thread) {
    AttentionBlock block = block_of(call, index);
    block.scores = scratch + thread * floats;
    if (is_reduced(shape, segments[segment_of(index)])) {
      if (index + 1 < first_task_.back()) {
        const AttentionBlock next = block_of(call, index + 1);
        block.next_keys = next.keys.data;
        block.next_values = next.values.data;
      }
      table_.attention_reduced(block);
    } else {
      table_.attention(block);
    }
  });
}

void AttentionEngine::run_split(const Call& call, int parts) {
  const int tasks = first_task_.back();
  const int64_t floats = int64_t{parts} * kFewQueries * part_floats(call.shape.head_dim);
  float* memory = room_for_floats(parts_, floats * tasks);
  pool_.parallel_for(tasks * parts, [&](int index, int) {
    AttentionBlock block = block_of(call, index / parts);
    block.parts = memory + index / parts * floats;
    table_.attention_part(block, index % parts);
  });
  for (int task = 0; task < tasks; ++task) {
    AttentionBlock block = block_of(call, task);
    block.parts = memory + task * floats;
    table_.attention_finish(block);
  }
}

}  // namespace ocelli::kernels::cpu
