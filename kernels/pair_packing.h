// bf16 weight matrices in the one layout that AVX2, AVX-512 and AMX all read in order.
//
// A matrix W [outputs, inputs] of bf16 becomes one block of values in panels of 16 outputs:
//
//   [panel][step][16 outputs][2 inputs]
//
//   panel  outputs 16 · panel … + 15; ceil(outputs / 16) of them. Outputs past the last are 0.
//   step   inputs 2 · step and the next; ceil(inputs / 2) of them. An input past the last is 0.
//
// So a step is a line of 64 bytes, in which word n holds two inputs of output n: one operand of
// AVX-512, two of AVX2's, one row of an AMX tile (16 steps). Panels follow one another; the block
// starts on a cache line. Numbers are little-endian. docs/weight-format.md describes the file that
// holds them.
#pragma once

#include <vector>

#include "host/thread_pool.h"
#include "kernels/host_storage.h"
#include "kernels/ops.h"

namespace ocelli::kernels {

// The matrices of a LinearSource in panels, each in its own, one behind the other: where all but
// the last have a multiple of 16 outputs they are one matrix as well.
class PairStack {
 public:
  // Floats are rounded to bf16, to nearest, even; quantised matrices are turned back into floats
  // first. Throws host::Error when a value is NaN, infinite, or becomes infinite, or memory is
  // short.
  PairStack(const LinearSource& source, host::ThreadPool& pool);

  // The matrices, which refer to this object's memory.
  const std::vector<HostTensor>& weights() const { return weights_; }

 private:
  HostStorage values_;
  std::vector<HostTensor> weights_;
};

// `matrix` as it will be in such a stack, but for its values.
HostTensor planned_pairs(const HostTensor& matrix);

// A matrix in panels turned back into rows of bf16.
class UnpackedPairs {
 public:
  explicit UnpackedPairs(const HostTensor& panels);
  // Refers to this object's memory.
  const HostTensor& tensor() const { return tensor_; }

 private:
  std::vector<uint16_t> values_;
  HostTensor tensor_;
};

}  // namespace ocelli::kernels
