// The caches of keys and values on the CPU: which thread writes which rows of which heads.
#pragma once

#include <cstdint>
#include <span>

#include "host/thread_pool.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/ops.h"

namespace ocelli::kernels::cpu {

class CacheWriter {
 public:
  // Both must outlive it.
  CacheWriter(const KernelTable& table, host::ThreadPool& pool) : table_(table), pool_(pool) {}

  // Ops::append.
  void append(const Tensor& x, const Tensor& cache, int capacity,
              std::span<const Segment> segments);
  // Ops::append_rotated.
  void append_rotated(const Tensor& qkv, const Tensor& angles, const LayerCache& cache,
                      std::span<const Segment> segments);

 private:
  // The rows of all segments, and the heads of a cache that they go to.
  struct Call {
    std::span<const Segment> segments;
    int heads;
    int head_dim;
    int capacity;
    int rows = 0;
    bool begins = false;  // a sequence
  };
  // Where a row of activations is, where it stands in its sequence, and the row of a cache that its
  // first head goes to; the next heads' are `capacity` rows apart.
  struct Place {
    int row;
    int position;
    int64_t target;
  };
  using Places = std::span<const Place>;

  static Call call_of(std::span<const Segment> segments, int heads, int head_dim, int capacity);
  // Advises the system about a cache that a call begins to fill.
  static void make_ready(const Call& call, const Tensor& cache);
  // Calls task(places) for some rows at a time, which pass over `cols` values each.
  template <typename Task>
  void each_block(const Call& call, int cols, const Task& task);
  void write_heads(const Call& call, Places places, const Rows& from, const Rows& to) const;
  // The values of one head to the first row of `to`.
  void write_head(const float* values, int head_dim, const Rows& to) const;

  const KernelTable& table_;
  host::ThreadPool& pool_;
};

}  // namespace ocelli::kernels::cpu
