// A small Phi-2 of random weights, in fp32 or int8, whose heads are as wide as the real one's.
#pragma once

#include <cmath>
#include <deque>
#include <vector>

#include "kernels/quantise.h"
#include "llm/phi2.h"
#include "llm/random.h"

namespace ocelli::llm {

class RandomPhi {
 public:
  // Quantised: every matrix of the layers and the last one are int8 with a scale a row, so that
  // attention may be Precision::kReduced.
  RandomPhi(uint64_t seed, bool quantised) : random_(seed), quantised_(quantised) {
    config_.hidden_size = 160;
    config_.intermediate_size = 192;
    config_.num_hidden_layers = 2;
    config_.num_attention_heads = 2;
    config_.num_key_value_heads = 2;
    config_.vocab_size = 97;
    const int hidden = config_.hidden_size;
    weights_.embed_tokens = floats({config_.vocab_size, hidden}, 1, 0);
    for (int i = 0; i < config_.num_hidden_layers; ++i) {
      Phi2Weights::Layer layer;
      layer.norm_weight = floats({hidden}, 0.3F, 1);
      layer.norm_bias = floats({hidden}, 0.3F, 0);
      for (int part = 0; part < 3; ++part) add_linear(hidden, hidden, layer.qkv);
      add_linear(hidden, hidden, layer.dense);
      add_linear(config_.intermediate_size, hidden, layer.fc1);
      add_linear(hidden, config_.intermediate_size, layer.fc2);
      weights_.layers.push_back(layer);
    }
    weights_.final_norm_weight = floats({hidden}, 0.3F, 1);
    weights_.final_norm_bias = floats({hidden}, 0.3F, 0);
    add_linear(config_.vocab_size, hidden, weights_.lm_head);
  }
  RandomPhi(const RandomPhi&) = delete;
  RandomPhi& operator=(const RandomPhi&) = delete;

  const Phi2Config& config() const { return config_; }
  // Their memory is this object's.
  const Phi2Weights& weights() const { return weights_; }

 private:
  // In [middle − range, middle + range].
  kernels::HostTensor floats(std::vector<int64_t> shape, float range, float middle) {
    kernels::HostTensor tensor;
    tensor.name = "random";
    tensor.shape = std::move(shape);
    std::vector<float>& values = floats_.emplace_back(tensor.elements());
    for (float& value : values) {
      value = middle + range * (2 * static_cast<float>(random_.uniform()) - 1);
    }
    tensor.data = reinterpret_cast<const std::byte*>(values.data());
    return tensor;
  }

  void add_linear(int outputs, int inputs, kernels::LinearSource& linear) {
    const float range = 2 / std::sqrt(static_cast<float>(inputs));
    const kernels::HostTensor matrix = floats({outputs, inputs}, range, 0);
    linear.weights.push_back(quantised_ ? quantise(matrix) : matrix);
    linear.biases.push_back(floats({outputs}, 0.1F, 0));
  }

  kernels::HostTensor quantise(const kernels::HostTensor& matrix) {
    const auto inputs = static_cast<int>(matrix.shape[1]);
    const auto* source = reinterpret_cast<const float*>(matrix.data);
    std::vector<int8_t>& values = bytes_.emplace_back(matrix.elements());
    std::vector<float>& scales = floats_.emplace_back(matrix.shape[0]);
    for (int64_t row = 0; row < matrix.shape[0]; ++row) {
      kernels::quantise_row(source + row * inputs, inputs, inputs, values.data() + row * inputs,
                            scales.data() + row);
    }
    kernels::HostTensor quantised = matrix;
    quantised.dtype = kernels::DType::kI8;
    quantised.data = reinterpret_cast<const std::byte*>(values.data());
    quantised.scales = scales.data();
    quantised.group = inputs;
    return quantised;
  }

  Random random_;
  bool quantised_;
  Phi2Config config_;
  Phi2Weights weights_;
  std::deque<std::vector<float>> floats_;
  std::deque<std::vector<int8_t>> bytes_;
};

}  // namespace ocelli::llm
