// Products with quantised matrices on the CPU, int8 and int4: rows are quantised once for all that
// share them, and what belongs together is computed in one turn of the threads.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "host/thread_pool.h"
#include "kernels/cpu/cpu_linear_weights.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/read_ahead.h"
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
    Tensor out;
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
  // Memory that grows to the largest call so far, so that the token loop allocates nothing.
  struct Scratch {
    std::unique_ptr<HostStorage> memory;
    int64_t bytes = 0;

    std::byte* room_for(int64_t wanted);
  };
  // Quantised rows and where they live.
  struct Inputs {
    QuantisedRows rows;
    Scratch values;
    Scratch scales;
    Scratch corrections;
    Scratch sums;
  };
  // Rows and panels of a task.
  struct TaskShape {
    int rows;
    int panels;
  };
  // A part of a matrix, and what its product becomes.
  struct Factor {
    const QuantisedRows* x;
    const CpuLinear* weights;
    size_t part;
    Epilogue epilogue;

    const PackedInt8& panels() const { return weights->int8_parts[part].weight; }
    const PanelShape& shape() const { return panels().shape(); }
  };
  // An output in rectangles, each a task that multiplies by one factor, or by one after the other.
  struct Grid {
    std::array<Factor, 2> factors;
    int count;
    Rows out;
    TaskShape tasks = {};
    int ranges = 0;  // of panels
    int first_task = 0;
    int end_task = 0;
  };

  // Quantises the rows of x, or those normed, for panels of this shape.
  void quantise(const Tensor& x, const Norm* norm, const PanelShape& panels, Inputs& inputs);
  TaskShape task_shape(const QuantisedRows& x, int rows, const PanelShape& shape, int panels) const;
  // Computes grids_, whose outputs have `rows` rows.
  void compute(int rows);
  void plan(int rows);
  void announce(int tasks);
  const Grid& grid_of(int task) const;
  void run_task(const Grid& grid, int index, int rows, std::byte* scratch) const;
  void multiply(const Int8Block& block, const Factor& factor, std::byte* expanded) const;
  // Bytes that a task has for sums, and in all with what int4 is expanded to.
  int64_t sum_bytes(const Grid& grid) const;
  int64_t scratch_bytes(const Grid& grid) const;

  const KernelTable& table_;
  host::ThreadPool& pool_;
  ReadAhead& ahead_;
  Inputs inputs_[2];
  std::vector<Grid> grids_;  // of the call in hand
  Scratch normed_;           // a row for each thread
  Scratch scratch_;          // a task's, for each thread
};

}  // namespace ocelli::kernels::cpu
