// What the CPU's LinearEngine keeps of a weight matrix that is not bf16 in panels.
#pragma once

#include <deque>
#include <vector>

#include "kernels/cpu/kernel_table.h"
#include "kernels/ops.h"
#include "kernels/packing.h"

namespace ocelli::kernels::cpu {

// Matrices of floats and panels stay where the checkpoint mapped them, other quantised ones are
// packed; biases become fp32.
class CpuLinear : public LinearWeights {
 public:
  struct FloatPart {
    Rows weight;
    int first_output;
    int outputs;
  };
  struct Int8Part {
    // Yet to be packed, or panels where they stand.
    explicit Int8Part(const PanelShape& shape) : weight(shape) {}
    Int8Part(const PanelShape& shape, const HostTensor& panels, int first)
        : weight(shape, panels.data, panels.scales), first_output(first) {}
    PackedInt8 weight;
    int first_output = 0;
  };

  CpuLinear(const KernelTable& table, const LinearSource& source, int output_count, int number)
      : LinearWeights(static_cast<int>(source.weights[0].shape[1]), output_count), id(number) {
    if (!source.weights[0].quantised()) {
      add_floats(source);
    } else if (source.weights[0].layout == Layout::kPanels) {
      add_panels(source);
    } else {
      int8_parts.emplace_back(PanelShape{outputs, inputs, source.weights[0].group});
    }
    if (!source.biases.empty()) bias_.resize(output_count);
    float* bias = bias_.data();
    for (const HostTensor& part : source.biases) {
      table.to_f32(part.dtype, part.data, static_cast<int>(part.elements()), bias);
      bias += part.elements();
    }
  }

  const int id;  // counts what an engine has loaded
  // One of these is empty.
  std::vector<FloatPart> float_parts;
  std::deque<Int8Part> int8_parts;

  const float* bias(int output) const { return bias_.empty() ? nullptr : bias_.data() + output; }

 private:
  void add_floats(const LinearSource& source) {
    int first = 0;
    for (const HostTensor& weight : source.weights) {
      const int count = static_cast<int>(weight.shape[0]);
      auto* data = const_cast<std::byte*>(weight.data);
      float_parts.push_back({{data, inputs, weight.dtype}, first, count});
      first += count;
    }
  }

  // Matrices whose panels follow one another, without outputs that stand for none between them,
  // are one.
  void add_panels(const LinearSource& source) {
    int first = 0;
    for (size_t i = 0; i < source.weights.size();) {
      const HostTensor& start = source.weights[i];
      PanelShape shape = start.panel_shape();
      for (++i; i < source.weights.size() && shape.outputs % kPanelOutputs == 0; ++i) {
        const HostTensor& next = source.weights[i];
        if (next.data != start.data + shape.value_bytes() ||
            next.scales != start.scales + shape.scales()) {
          break;
        }
        shape.outputs += static_cast<int>(next.shape[0]);
      }
      int8_parts.emplace_back(shape, start, first);
      first += shape.outputs;
    }
  }

  std::vector<float> bias_;
};

}  // namespace ocelli::kernels::cpu
