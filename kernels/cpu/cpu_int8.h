// Products with quantised matrices on the CPU, int8 and int4: rows are quantised once for all that
// share them, and what belongs together is computed in one turn of the threads.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "host/thread_pool.h"
#include "kernels/cpu/cpu_linear_weights.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/read_ahead.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/tasks.h"
#include "kernels/ops.h"

namespace ocelli::kernels::cpu {

class Int8Engine {
 public:
  // All must outlive it.
  Int8Engine(const KernelTable& table, host::ThreadPool& pool, ReadAhead& ahead)
      : table_(table), pool_(pool), ahead_(ahead) {}

  // A product with a gate or without, as in Projection.
  struct Product {
    const CpuLinear* weights;
    const CpuLinear* gate;
    const Tensor* out;
    Epilogue epilogue;
  };
  // Whether both take the same quantised rows.
  static bool share_rows(const CpuLinear& a, const CpuLinear& b);
  // Whether their outputs can be computed in turns, rectangle by rectangle.
  static bool pair_up(const CpuLinear& a, const CpuLinear& b);

  // Ops::project, for matrices that share rows, and gates that pair up with their weights.
  void project(const Tensor& x, const Norm* norm, std::span<const Product> products);
  // out += first + second, which pair up.
  struct Addend {
    const Tensor& x;
    const CpuLinear& weights;
  };
  void add_both(const Addend& first, const Addend& second, const Tensor& out);

 private:
  // Quantised rows and where they live.
  struct Inputs {
    QuantisedRows rows;
    Scratch values;
    Scratch scales;
    Scratch corrections;
    Scratch sums;
  };
  // A part of a matrix, and what its product becomes: everything a task needs, side by side, as the
  // threads' first look at it takes the time of a way between cores, or to the L3.
  struct Factor {
    Int8Block block;  // for all rows and outputs
    PanelShape shape;
    int64_t panel_bytes = 0;
  };
  // An output in rectangles, each a task that multiplies by one factor, or by one after the other.
  struct alignas(64) Grid {
    int count = 0;
    TaskShape tasks = {};
    int ranges = 0;  // of panels
    int first_task = 0;
    int end_task = 0;
    int64_t sum_bytes = 0;         // of a task's scratch, before what int4 is expanded to
    int64_t scratch_bytes = 0;     // of a thread
    std::byte* scratch = nullptr;  // of all threads
    std::array<Factor, 2> factors;
  };
  // What a thread is given to do with an index: it stays where it is, and as it is.
  struct Turn {
    const Int8Engine& engine;
    void operator()(int index, int thread) const { engine.run_task(index, thread); }
  };

  // Quantises the rows of x, or those normed, for panels of this shape.
  void quantise(const Tensor& x, const Norm* norm, const PanelShape& panels, Inputs& inputs);
  // Whether rows are few enough to be multiplied without tiles, and by int4 as it is.
  bool are_few(int rows, const PanelShape& shape) const;
  static Factor factor(const Inputs& x, const CpuLinear& weights, size_t part, const Rows& out);
  TaskShape task_shape(const QuantisedRows& x, int rows, const PanelShape& shape, int panels) const;
  // Computes grids_, whose outputs have `rows` rows; `id` is of what is read first.
  void compute(int rows, int id);
  void plan(int rows);
  void announce(int id, int tasks);
  const Grid& grid_of(int task) const;
  void run_task(int index, int thread) const;
  void multiply(const Int8Block& block, const PanelShape& shape, std::byte* expanded) const;
  void plan_scratch(Grid& grid) const;

  const KernelTable& table_;
  host::ThreadPool& pool_;
  ReadAhead& ahead_;
  Inputs inputs_[2];
  std::vector<Grid> grids_;  // of the call in hand
  const Turn turn_ = {*this};
  Scratch normed_;   // a row for each thread
  Scratch scratch_;  // a task's, for each thread
};

}  // namespace ocelli::kernels::cpu
