// Weight matrices on the CPU: floats and panels straight from the checkpoint's mapped memory, other
// quantised ones packed, and the products with all of them.
#pragma once

#include <span>
#include <vector>

#include "host/thread_pool.h"
#include "kernels/cpu/cpu_bf16.h"
#include "kernels/cpu/cpu_int8.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/read_ahead.h"
#include "kernels/ops.h"

namespace ocelli::kernels::cpu {

class LinearEngine {
 public:
  // Both must outlive it.
  LinearEngine(const KernelTable& table, host::ThreadPool& pool)
      : table_(table), pool_(pool), ahead_(pool), bf16_(table, pool), int8_(table, pool, ahead_) {}

  // Ops::load_linear, Ops::linear and Ops::linear_sum.
  Linear load(const LinearSource& source);
  void run(const Tensor& x, const Linear& weights, const Tensor& out, Epilogue epilogue);
  void run_sum(std::span<const Term> terms, const Tensor& out);
  // Whether products with these matrices round x first, to int8 or to bf16.
  static bool rounds(const Linear& weights);

  // Ops::project: in one pass with the norm where the projections share rows, which all are of int8
  // or int4 then; and each for itself from what is normed.
  static bool share_rows(std::span<const Projection> projections);
  void project_shared(const Tensor& x, const Norm* norm, std::span<const Projection> projections);
  void project_each(const Tensor& x, std::span<const Projection> projections);

 private:
  void run_floats(const Tensor& x, const CpuLinear& w, const CpuLinear* gate, const Tensor& out,
                  Epilogue epilogue);
  struct Strip {
    Rows weight;
    int first_output;
    int outputs;
  };
  static Strip strip_of(const CpuLinear& w, int index);

  const KernelTable& table_;
  host::ThreadPool& pool_;
  ReadAhead ahead_;
  Bf16Engine bf16_;
  Int8Engine int8_;
  std::vector<Int8Engine::Product> products_;  // of the call in hand
};

}  // namespace ocelli::kernels::cpu
