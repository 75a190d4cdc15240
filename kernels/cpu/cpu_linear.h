// Weight matrices on the CPU: floats and panels straight from the checkpoint's mapped memory, other
// quantised ones packed, and the products with both.
#pragma once

#include <memory>
#include <vector>

#include "host/thread_pool.h"
#include "kernels/cpu/cpu_bf16.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/ops.h"
#include "kernels/packing.h"

namespace ocelli::kernels::cpu {

class CpuLinear;

class LinearEngine {
 public:
  // Both must outlive it.
  LinearEngine(const KernelTable& table, host::ThreadPool& pool)
      : table_(table), pool_(pool), bf16_(table, pool) {}

  // Ops::load_linear and Ops::linear.
  Linear load(const LinearSource& source);
  void run(const Tensor& x, const Linear& weights, const Tensor& out, Epilogue epilogue);
  // out = activation(fc1 x) · gate x: what two linear operations give, in one pass where both
  // matrices are quantised in the same groups.
  void run_gated(const Tensor& x, const Mlp& mlp, const Tensor& out);

 private:
  void run_floats(const Tensor& x, const CpuLinear& w, const CpuLinear* gate, const Tensor& out,
                  Epilogue epilogue);
  // Tells the pool what will probably be read after this linear operation: what followed it last
  // time. start_of(thread) is where the thread's own reading of `id` begins.
  template <typename StartOf>
  void announce(int id, const StartOf& start_of);
  void announce_panels(const CpuLinear& w, const QuantisedRows& x, int rows);
  struct Strip {
    Rows weight;
    int first_output;
    int outputs;
  };
  static Strip strip_of(const CpuLinear& w, int index);
  // Quantises x for a product with panels of this shape; the result stays until the next call.
  QuantisedRows quantise(const Tensor& x, const PanelShape& panels);
  // Rows and panels of a task.
  struct TaskShape {
    int rows;
    int panels;
  };
  TaskShape task_shape(const QuantisedRows& x, int rows, const PanelShape& shape) const;
  // Calls body(block) for rectangles that cover [rows, outputs] of a packed matrix.
  template <typename Body>
  void each_rectangle(const QuantisedRows& x, int rows, const PanelShape& shape, const Body& body);

  // What came after a linear operation, and where its threads began to read.
  struct Follower {
    int id = -1;
    std::vector<const std::byte*> starts;
  };

  const KernelTable& table_;
  host::ThreadPool& pool_;
  Bf16Engine bf16_;
  std::vector<Follower> followers_;  // of each that was loaded, by its id
  int last_ = -1;                    // the id of the one that ran last
  // Memory that grows to the largest call so far, so that the token loop allocates nothing.
  struct Scratch {
    std::unique_ptr<HostStorage> memory;
    int64_t bytes = 0;

    std::byte* room_for(int64_t wanted);
  };
  Scratch values_;
  Scratch scales_;
  Scratch corrections_;
  Scratch sums_;
  Scratch scratch_;  // a block's, for each thread
};

}  // namespace ocelli::kernels::cpu
