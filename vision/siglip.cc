#include "vision/siglip.h"

#include <cmath>
#include <numeric>

#include "host/error.h"

namespace ocelli::vision {

using kernels::DType;
using kernels::Epilogue;
using kernels::HostTensor;
using kernels::LinearSource;
using kernels::Placement;
using kernels::Projection;
using kernels::Segment;
using kernels::Tensor;
using kernels::TensorReader;

SiglipConfig SiglipConfig::parse(const host::JsonObject& json, int feature_layer) {
  constexpr int kLargest = 1 << 20;
  const std::string type = json.string("model_type", "siglip_vision_model");
  if (type != "siglip_vision_model") {
    host::fail("{}: model_type '{}' is not supported: the vision tower must be siglip_vision_model",
               json.where(), host::printable(type));
  }
  const std::string activation = json.string("hidden_act", "gelu_pytorch_tanh");
  if (activation != "gelu_pytorch_tanh") {
    host::fail("{}: hidden_act '{}' is not supported: SigLIP uses gelu_pytorch_tanh", json.where(),
               host::printable(activation));
  }
  if (const int channels = json.integer("num_channels", 3, 1, kLargest); channels != 3) {
    host::fail("{}: num_channels is {}: pictures here have 3", json.where(), channels);
  }
  SiglipConfig config;
  config.hidden_size = json.integer("hidden_size", config.hidden_size, 1, kLargest);
  config.intermediate_size =
      json.integer("intermediate_size", config.intermediate_size, 1, kLargest);
  config.num_attention_heads =
      json.integer("num_attention_heads", config.num_attention_heads, 1, kLargest);
  config.image_size = json.integer("image_size", config.image_size, 1, 1 << 14);
  config.patch_size = json.integer("patch_size", config.patch_size, 1, 1 << 10);
  config.layer_norm_eps = static_cast<float>(json.number("layer_norm_eps", 1e-6, 0, 1));
  if (config.hidden_size % config.num_attention_heads != 0) {
    host::fail("{}: hidden_size {} is not a multiple of num_attention_heads {}", json.where(),
               config.hidden_size, config.num_attention_heads);
  }
  if (config.patch_size > config.image_size) {
    host::fail("{}: patch_size {} is larger than image_size {}", json.where(), config.patch_size,
               config.image_size);
  }
  const int layers = json.integer("num_hidden_layers", config.blocks, 1, 4096);
  config.blocks = feature_layer < 0 ? layers + 1 + feature_layer : feature_layer;
  if (config.blocks < 0 || config.blocks > layers) {
    host::fail("{}: vision_feature_layer {} does not exist: num_hidden_layers is {}", json.where(),
               feature_layer, layers);
  }
  return config;
}

namespace {

// The tensors under one prefix.
struct Scope {
  TensorReader& reader;
  std::string prefix;

  HostTensor tensor(const std::string& name, const std::vector<int64_t>& shape) const {
    return reader.require(prefix + name, shape);
  }
  void linear(const std::string& name, int64_t outputs, int64_t inputs,
              LinearSource& source) const {
    reader.require_linear(prefix + name, outputs, inputs, source);
  }
};

SiglipWeights::Layer read_layer(const Scope& scope, const SiglipConfig& config) {
  const int64_t hidden = config.hidden_size;
  SiglipWeights::Layer layer;
  layer.norm1_weight = scope.tensor("layer_norm1.weight", {hidden});
  layer.norm1_bias = scope.tensor("layer_norm1.bias", {hidden});
  layer.norm2_weight = scope.tensor("layer_norm2.weight", {hidden});
  layer.norm2_bias = scope.tensor("layer_norm2.bias", {hidden});
  for (const char* name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}) {
    scope.linear(name, hidden, hidden, layer.qkv);
  }
  scope.linear("self_attn.out_proj", hidden, hidden, layer.out);
  scope.linear("mlp.fc1", config.intermediate_size, hidden, layer.fc1);
  scope.linear("mlp.fc2", hidden, config.intermediate_size, layer.fc2);
  return layer;
}

}  // namespace

SiglipWeights SiglipWeights::read(TensorReader& reader, const std::string& prefix,
                                  const SiglipConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t patch = config.patch_size;
  const Scope embeddings{reader, prefix + "embeddings."};
  SiglipWeights weights;
  HostTensor kernel = embeddings.tensor("patch_embedding.weight", {hidden, 3, patch, patch});
  // A convolution whose stride is its size is a matrix product over flattened patches.
  kernel.shape = {hidden, config.patch_values()};
  weights.patch_embedding.weights.push_back(kernel);
  weights.patch_embedding.biases.push_back(embeddings.tensor("patch_embedding.bias", {hidden}));
  weights.position_embedding =
      embeddings.tensor("position_embedding.weight", {config.patches(), hidden});
  for (int i = 0; i < config.blocks; ++i) {
    weights.layers.push_back(
        read_layer({reader, fmt::format("{}encoder.layers.{}.", prefix, i)}, config));
  }
  return weights;
}

Siglip::Siglip(kernels::Ops& ops, const SiglipConfig& config, const SiglipWeights& weights,
               int max_images)
    : ops_(ops), config_(config), patch_embedding_(ops.load_linear(weights.patch_embedding)) {
  const int rows = max_images * config.patches();
  const int hidden = config.hidden_size;
  const auto activation = [&](int cols) {
    return ops.tensor(rows, cols, DType::kF32, Placement::kActivation);
  };
  patches_ = activation(config.patch_values());
  x_ = activation(hidden);
  h_ = activation(hidden);
  qkv_ = activation(3 * hidden);
  context_ = activation(hidden);

  // Positions are added in fp32, whatever the file holds.
  position_embedding_ = ops.tensor(config.patches(), hidden, DType::kF32, Placement::kWeight);
  std::vector<int32_t> all(config.patches());
  std::iota(all.begin(), all.end(), 0);
  ops.embed(ops.load(weights.position_embedding), all, position_embedding_);

  const float epsilon = config.layer_norm_eps;
  for (const SiglipWeights::Layer& layer : weights.layers) {
    precision_ = kernels::attention_precision(layer.qkv);
    layers_.push_back({{ops.load(layer.norm1_weight), ops.load(layer.norm1_bias), epsilon},
                       {ops.load(layer.norm2_weight), ops.load(layer.norm2_bias), epsilon},
                       ops.load_linear(layer.qkv),
                       ops.load_linear(layer.out),
                       ops.load_linear(layer.fc1),
                       ops.load_linear(layer.fc2)});
  }
  hidden_ = ops.tensor(rows, config.intermediate_size,
                       kernels::input_dtype(ops, layers_, &Layer::fc2), Placement::kActivation);
  for (int i = 0; i < max_images; ++i) {
    segments_.push_back({i, i * config.patches(), config.patches(), 0});
  }
}

Tensor Siglip::encode(std::span<const float> patches) {
  const int rows = static_cast<int>(patches.size()) / config_.patch_values();
  OCELLI_CHECK(rows % config_.patches() == 0 && rows <= x_.rows, "{} rows of at most {}", rows,
               x_.rows);
  Tensor x = x_.row_range(0, rows);
  ops_.write(patches, patches_.row_range(0, rows));
  ops_.linear(patches_.row_range(0, rows), patch_embedding_, x, Epilogue::kStore);
  ops_.add(position_embedding_, x);
  for (const Layer& layer : layers_) encode_block(layer, rows);
  return x;
}

void Siglip::encode_block(const Layer& layer, int rows) {
  const int hidden = config_.hidden_size;
  const int head_dim = hidden / config_.num_attention_heads;
  const Tensor x = x_.row_range(0, rows);
  const Tensor h = h_.row_range(0, rows);
  const Tensor qkv = qkv_.row_range(0, rows);
  const Tensor context = context_.row_range(0, rows);
  const Tensor mlp = hidden_.row_range(0, rows);
  const kernels::AttentionShape shape = {.heads = config_.num_attention_heads,
                                         .kv_heads = config_.num_attention_heads,
                                         .head_dim = head_dim,
                                         .scale = 1 / std::sqrt(static_cast<float>(head_dim)),
                                         .causal = false,
                                         .capacity = config_.patches(),
                                         .precision = precision_,
                                         .cached = false};

  const Projection to_qkv = {layer.qkv, nullptr, qkv};
  ops_.project(x, &layer.norm1, {&to_qkv, 1}, h);
  ops_.attention(qkv.column_range(0, hidden), qkv.column_range(hidden, hidden),
                 qkv.column_range(2 * hidden, hidden), shape,
                 std::span(segments_).first(rows / config_.patches()), context);
  ops_.linear(context, layer.out, x, Epilogue::kAccumulate);
  const Projection to_mlp = {layer.fc1, nullptr, mlp, Epilogue::kGeluTanh};
  ops_.project(x, &layer.norm2, {&to_mlp, 1}, h);
  ops_.linear(mlp, layer.fc2, x, Epilogue::kAccumulate);
}

}  // namespace ocelli::vision
