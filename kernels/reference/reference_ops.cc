#include "kernels/reference/reference_ops.h"

#include <vector>

#include "kernels/op_checks.h"
#include "kernels/packing.h"
#include "kernels/pair_packing.h"
#include "kernels/reference/naive.h"

namespace ocelli::kernels {
namespace {

using reference::View;

// fp32 copies, or int8 and scales: the oracle trades memory for plainness.
class ReferenceLinear : public LinearWeights {
 public:
  ReferenceLinear(const LinearSource& source, int output_count)
      : LinearWeights(static_cast<int>(source.weights[0].shape[1]), output_count),
        rounds_(source.weights[0].in_pairs()) {
    for (const HostTensor& weight : source.weights) {
      if (weight.quantised()) {
        append_quantised(weight);
      } else if (weight.in_pairs()) {
        append(UnpackedPairs(weight).tensor(), weight_);
      } else {
        append(weight, weight_);
      }
    }
    for (const HostTensor& bias : source.biases) append(bias, bias_);
  }

  void run(const View& x, Epilogue epilogue, const View& out) const {
    const View bias = bias_.empty() ? View{} : view(bias_, 1, outputs);
    if (rounds_) {
      reference::linear_bf16(x, view(weight_, outputs, inputs), bias, epilogue, out);
    } else if (scales_.empty()) {
      reference::linear(x, view(weight_, outputs, inputs), bias, epilogue, out);
    } else {
      auto* values = const_cast<std::byte*>(values_.data());
      const int groups = static_cast<int>(scales_.size() / outputs);
      reference::linear(
          x, {{values, DType::kI8, outputs, inputs, inputs}, view(scales_, outputs, groups)}, bias,
          epilogue, out);
    }
  }

 private:
  static void append(const HostTensor& source, std::vector<float>& target) {
    const size_t old = target.size();
    target.resize(old + source.elements());
    convert_to_f32(source.dtype, source.data, source.elements(), target.data() + old);
  }
  void append_quantised(const HostTensor& source) {
    if (source.layout == Layout::kPanels) return append_quantised(UnpackedInt8(source).tensor());
    values_.insert(values_.end(), source.data, source.data + source.bytes());
    const int64_t scales = source.elements() / source.group;
    for (int64_t i = 0; i < scales; ++i) scales_.push_back(scale_of(source, i));
  }
  // Views are read-write; nothing writes to a weight.
  static View view(const std::vector<float>& values, int rows, int cols) {
    auto* data = reinterpret_cast<std::byte*>(const_cast<float*>(values.data()));
    return {data, DType::kF32, rows, cols, cols};
  }

  bool rounds_;  // bf16 in panels: x is rounded
  std::vector<float> weight_;
  std::vector<std::byte> values_;  // of a quantised weight
  std::vector<float> scales_;      // likewise
  std::vector<float> bias_;
};

View view(const Tensor& tensor) {
  return {host_address(tensor), tensor.dtype, tensor.rows, tensor.cols, tensor.stride};
}

float* row_of(const Tensor& tensor, int row) {
  return reinterpret_cast<float*>(host_address(tensor.row_range(row, 1)));
}

class ReferenceOps : public HostOps {
 public:
  const char* name() const override { return "reference"; }

  Linear load_linear(const LinearSource& source) override {
    return std::make_shared<ReferenceLinear>(source, check_linear_source(source));
  }
  void embed(const Tensor& table, std::span<const int32_t> rows, const Tensor& out) override {
    check_embed(table, rows, out);
    if (table.dtype == DType::kI8) {
      for (int i = 0; i < out.rows; ++i) {
        QuantisedTable::read_row(table, rows[i], row_of(out, i));
      }
      return;
    }
    reference::embed(view(table), rows, view(out));
  }
  void linear(const Tensor& x, const Linear& weights, const Tensor& out,
              Epilogue epilogue) override {
    const auto& w = static_cast<const ReferenceLinear&>(*weights);
    check_linear(x, w, out, epilogue);
    w.run(view(x), epilogue, view(out));
  }
  void layer_norm(const Tensor& x, const Norm& norm, const Tensor& out) override {
    check_layer_norm(x, norm, out);
    reference::layer_norm(view(x), view(norm.weight), view(norm.bias), norm.epsilon, view(out));
  }
  void rms_norm(const Tensor& x, const Norm& norm, const Tensor& out) override {
    check_rms_norm(x, norm, out);
    reference::rms_norm(view(x), view(norm.weight), norm.epsilon, view(out));
  }
  void rope(const Tensor& x, int head_dim, const Tensor& table,
            std::span<const Segment> segments) override {
    check_rope(x, head_dim, table, segments);
    reference::rope(view(x), head_dim, view(table), segments);
  }
  void append(const Tensor& x, const Tensor& cache, int capacity,
              std::span<const Segment> segments) override {
    check_append(x, cache, capacity, segments);
    reference::append(view(x), view(cache), capacity, segments);
  }
  void attention(const Tensor& q, const Tensor& keys, const Tensor& values,
                 const AttentionShape& shape, std::span<const Segment> segments,
                 const Tensor& out) override {
    check_attention({q, keys, values, out}, shape, segments);
    reference::attention({view(q), view(keys), view(values), view(out)}, shape, segments);
  }
  void add(const Tensor& x, const Tensor& out) override {
    check_add(x, out);
    reference::add(view(x), view(out));
  }
};

}  // namespace

std::unique_ptr<Ops> make_reference_ops() {
  return std::make_unique<ReferenceOps>();
}

}  // namespace ocelli::kernels
