// Work of the CPU backend in tasks for its threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "host/thread_pool.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/host_storage.h"

namespace ocelli::kernels::cpu {

// Of many rows: so few tasks for each thread that each is long beside its beginning.
inline constexpr int kPassTasksPerThread = 16;

// Elements below which a second thread costs more than it brings to an operation that only passes
// over rows.
inline constexpr int64_t kSmallPass = 8'000;

inline int ceil_div(int a, int b) {
  return a / b + (a % b != 0 ? 1 : 0);
}

inline int round_up(int n, int multiple) {
  return ceil_div(n, multiple) * multiple;
}

// Tasks for each thread: if a core is taken away, the others have something left to take over.
inline constexpr int kTasksPerThread = 4;

// Rows and panels of a task of a product.
struct TaskShape {
  int rows;
  int panels;
};

inline Rows rows_of(const Tensor& tensor) {
  return {host_address(tensor), tensor.stride, tensor.dtype};
}

inline Rows shifted(const Rows& rows, int64_t row, int64_t col) {
  return rows.from(row, col);
}

// Row `row` of x, whose rows these are.
inline InputRow input_row(const Rows& rows, int row, const Tensor& x) {
  const int next = std::min(row + 1, x.rows - 1);
  return {shifted(rows, row, 0).data, shifted(rows, next, 0).data, rows.dtype, x.cols};
}

// Calls task(index, thread) for every index below count, on this thread alone when it is `small`.
template <typename Task>
void each_task(host::ThreadPool& pool, int count, bool small, const Task& task) {
  if (small) {
    for (int i = 0; i < count; ++i) task(i, 0);
  } else {
    pool.parallel_for(count, task);
  }
}

// out ← one row of layer_norm, or of rms_norm where the norm has no bias.
inline void norm_row(const KernelTable& table, const Norm& norm, const float* x, int cols,
                     float* out) {
  const float* weight = rows_of(norm.weight).f32(0);
  if (norm.bias.storage) {
    table.layer_norm(x, weight, rows_of(norm.bias).f32(0), norm.epsilon, cols, out);
  } else {
    table.rms_norm(x, weight, norm.epsilon, cols, out);
  }
}

// Ops::rope of the heads of one row, whose position has these angles: `half` cosines, then sines.
inline void rotate_row(const KernelTable& table, float* x, int cols, int head_dim,
                       const float* angles, int half) {
  for (int head = 0; head < cols; head += head_dim) table.rope(x + head, angles, half);
}

// Calls body(row), or body(row, thread), for every row, in groups that are worth a task.
template <typename Body>
void each_row(host::ThreadPool& pool, int rows, int cols, const Body& body) {
  const int worth = std::max<int>(1, static_cast<int>(kSmallPass / 2 / std::max(cols, 1)));
  const int group = std::max(worth, rows / (pool.size() * kPassTasksPerThread));
  const auto task = [&](int index, int thread) {
    const int first = index * group;
    const int end = first + std::min(group, rows - first);
    for (int row = first; row < end; ++row) {
      if constexpr (std::is_invocable_v<Body, int, int>) {
        body(row, thread);
      } else {
        body(row);
      }
    }
  };
  each_task(pool, ceil_div(rows, group), int64_t{rows} * cols < kSmallPass, task);
}

}  // namespace ocelli::kernels::cpu
