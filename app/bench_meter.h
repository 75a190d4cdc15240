// A decorator of Ops that counts the bytes a step must read and the operations it must do, whatever
// the model: what a benchmark compares its time with.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "kernels/forwarding_ops.h"

namespace ocelli::app {

// What operations are computed in, at best: products with a weight matrix in int8 for quantised
// weights, in bf16 for bf16; attention of reduced precision in bf16; fp32 for what is left.
enum class Arithmetic { kF32, kBf16, kInt8 };

struct Work {
  // Weights with their scales, biases and norms, and the keys and values in the cache, each as
  // often as an operation needs them; a row of a table that is looked up does not count.
  int64_t bytes = 0;
  // Two a multiply-add, of matrix products and attention.
  int64_t ops = 0;
  // The same by Arithmetic.
  std::array<int64_t, 3> ops_in{};

  // The one most operations are computed in.
  Arithmetic arithmetic() const;
};

class MeteredOps : public kernels::ForwardingOps {
 public:
  using ForwardingOps::ForwardingOps;

  // Runs `step` and returns what it asked for.
  template <typename Step>
  Work count(const Step& step) {
    work_ = {};
    counting_ = true;
    step();
    counting_ = false;
    return work_;
  }
  // The matrices that hold cached keys and values.
  const std::vector<kernels::Tensor>& caches() const { return caches_; }
  // How most bytes of the matrices loaded are stored: "f32", "f16", "bf16", "int8" (one scale a
  // row), "q8_0" (more) or "int4".
  std::string weight_format() const;

  kernels::Linear load_linear(const kernels::LinearSource& source) override;
  kernels::Tensor tensor(int rows, int cols, kernels::DType dtype,
                         kernels::Placement placement) override;
  void linear(const kernels::Tensor& x, const kernels::Linear& weights, const kernels::Tensor& out,
              kernels::Epilogue epilogue) override;
  void layer_norm(const kernels::Tensor& x, const kernels::Norm& norm,
                  const kernels::Tensor& out) override;
  void rms_norm(const kernels::Tensor& x, const kernels::Norm& norm,
                const kernels::Tensor& out) override;
  void attention(const kernels::Tensor& q, const kernels::Tensor& keys,
                 const kernels::Tensor& values, const kernels::AttentionShape& shape,
                 std::span<const kernels::Segment> segments, const kernels::Tensor& out) override;
  void project(const kernels::Tensor& x, const kernels::Norm* norm,
               std::span<const kernels::Projection> projections,
               const kernels::Tensor& normed) override;
  void linear_sum(std::span<const kernels::Term> terms, const kernels::Tensor& out) override;

 private:
  struct Footprint {
    int64_t bytes;
    Arithmetic arithmetic;
  };
  void count_product(int rows, const kernels::Linear& weights);
  void count_ops(int64_t ops, Arithmetic arithmetic);
  void count_norm(const kernels::Norm& norm);
  void count_attention(const kernels::Tensor& keys, const kernels::AttentionShape& shape,
                       std::span<const kernels::Segment> segments);

  std::unordered_map<const kernels::LinearWeights*, Footprint> footprints_;
  std::map<std::string, int64_t> format_bytes_;
  std::vector<kernels::Tensor> caches_;
  std::unordered_set<const kernels::Storage*> cache_storage_;
  Work work_;
  bool counting_ = false;
};

}  // namespace ocelli::app
