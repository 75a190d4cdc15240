// Products with bf16 matrices in panels on the CPU; the panels stay where they are.
#pragma once

#include "host/thread_pool.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/scratch.h"
#include "kernels/ops.h"

namespace ocelli::kernels::cpu {

class Bf16Linear;

class Bf16Engine {
 public:
  // Both must outlive it.
  Bf16Engine(const KernelTable& table, host::ThreadPool& pool) : table_(table), pool_(pool) {}

  // Ops::load_linear, for matrices of bf16 in panels.
  Linear load(const LinearSource& source) const;
  // `linear` as one that load() made, or null.
  static const Bf16Linear* is_one(const Linear& linear);
  // Ops::linear.
  void run(const Tensor& x, const Bf16Linear& weights, const Tensor& out, Epilogue epilogue);

 private:
  // Rounds x; the result stays until the next call.
  Bf16Rows round(const Tensor& x);

  const KernelTable& table_;
  host::ThreadPool& pool_;
  Scratch values_;
  Scratch sums_;
};

}  // namespace ocelli::kernels::cpu
