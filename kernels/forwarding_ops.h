// Ops whose every operation is another one's: what a decorator begins with, to override some.
#pragma once

#include <memory>
#include <utility>

#include "kernels/ops.h"

namespace ocelli::kernels {

class ForwardingOps : public Ops {
 public:
  explicit ForwardingOps(std::unique_ptr<Ops> inner) : inner_(std::move(inner)) {}

  const char* name() const override { return inner_->name(); }

  Linear load_linear(const LinearSource& source) override { return inner_->load_linear(source); }
  Tensor load(const HostTensor& source) override { return inner_->load(source); }
  DType input_dtype(const Linear& weights) const override { return inner_->input_dtype(weights); }
  Tensor tensor(int rows, int cols, DType dtype, Placement placement) override {
    return inner_->tensor(rows, cols, dtype, placement);
  }
  void write(std::span<const float> source, const Tensor& target) override {
    inner_->write(source, target);
  }
  void read(const Tensor& source, std::span<float> target) override {
    inner_->read(source, target);
  }

  void embed(const Tensor& table, std::span<const int32_t> rows, const Tensor& out) override {
    inner_->embed(table, rows, out);
  }
  void linear(const Tensor& x, const Linear& weights, const Tensor& out,
              Epilogue epilogue) override {
    inner_->linear(x, weights, out, epilogue);
  }
  void layer_norm(const Tensor& x, const Norm& norm, const Tensor& out) override {
    inner_->layer_norm(x, norm, out);
  }
  void rms_norm(const Tensor& x, const Norm& norm, const Tensor& out) override {
    inner_->rms_norm(x, norm, out);
  }
  void rope(const Tensor& x, int head_dim, const Tensor& table,
            std::span<const Segment> segments) override {
    inner_->rope(x, head_dim, table, segments);
  }
  void append(const Tensor& x, const Tensor& cache, int capacity,
              std::span<const Segment> segments) override {
    inner_->append(x, cache, capacity, segments);
  }
  void attention(const Tensor& q, const Tensor& keys, const Tensor& values,
                 const AttentionShape& shape, std::span<const Segment> segments,
                 const Tensor& out) override {
    inner_->attention(q, keys, values, shape, segments, out);
  }
  void add(const Tensor& x, const Tensor& out) override { inner_->add(x, out); }

  void argmax(const Tensor& x, std::span<float> scratch, std::span<int32_t> columns) override {
    inner_->argmax(x, scratch, columns);
  }
  void project(const Tensor& x, const Norm* norm, std::span<const Projection> projections,
               const Tensor& normed) override {
    inner_->project(x, norm, projections, normed);
  }
  void linear_sum(std::span<const Term> terms, const Tensor& out) override {
    inner_->linear_sum(terms, out);
  }
  void append_rotated(const Tensor& qkv, const Tensor& angles, const LayerCache& cache,
                      std::span<const Segment> segments) override {
    inner_->append_rotated(qkv, angles, cache, segments);
  }

 protected:
  Ops& inner() { return *inner_; }

 private:
  std::unique_ptr<Ops> inner_;
};

}  // namespace ocelli::kernels
