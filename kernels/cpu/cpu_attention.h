// Attention on the CPU: which thread computes which queries over which keys.
#pragma once

#include <span>
#include <vector>

#include "host/thread_pool.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/scratch.h"
#include "kernels/op_checks.h"
#include "kernels/ops.h"

namespace ocelli::kernels::cpu {

class AttentionEngine {
 public:
  // Both must outlive it.
  AttentionEngine(const KernelTable& table, host::ThreadPool& pool) : table_(table), pool_(pool) {}

  // Ops::attention.
  void run(const AttentionTensors& tensors, const AttentionShape& shape,
           std::span<const Segment> segments);

 private:
  struct Call {
    const AttentionTensors& tensors;
    const AttentionShape& shape;
    std::span<const Segment> segments;
  };

  // Whether a segment is computed at Precision::kReduced.
  bool is_reduced(const AttentionShape& shape, const Segment& segment) const;
  // The tasks of a segment: blocks of its rows for each head, or for each group of heads that share
  // their keys where a segment of one row has such.
  int heads_per_task(const AttentionShape& shape, const Segment& segment) const;
  int rows_per_task(const AttentionShape& shape, const Segment& segment) const;
  int tasks_of(const AttentionShape& shape, const Segment& segment) const;
  // Fills first_task_ and rows_per_task_.
  void plan(const Call& call);
  int segment_of(int task) const;
  // Task `index` of all the segments, but for its scratch.
  AttentionBlock block_of(const Call& call, int index) const;
  // Few tasks of few rows: threads share their keys, and each task's parts are merged at the end.
  void run_split(const Call& call, int parts);

  const KernelTable& table_;
  host::ThreadPool& pool_;
  // A model's calls stay within its capacity, so that only its first attention allocates.
  Scratch scratch_;                     // for each thread
  Scratch parts_;                       // of a run_split
  std::vector<int> first_task_;         // of each segment, and the number of all tasks
  int rows_per_task_ = kAttentionRows;  // at most; a multiple of kAttentionPadding
};

}  // namespace ocelli::kernels::cpu
