#include "llm/phi2.h"

#include <array>

#include "host/error.h"

namespace ocelli::llm {

using kernels::Epilogue;
using kernels::Projection;
using kernels::Segment;
using kernels::Tensor;
using kernels::TensorReader;
using kernels::Term;

namespace {

void require_supported(const host::JsonObject& json) {
  const std::string activation = json.string("hidden_act", "gelu_new");
  if (activation != "gelu_new") {
    host::fail("{}: hidden_act '{}' is not supported: Phi-2 uses gelu_new", json.where(),
               host::printable(activation));
  }
  if (json.boolean("qk_layernorm", false)) {
    host::fail("{}: qk_layernorm is not supported", json.where());
  }
  if (json.boolean("tie_word_embeddings", false)) {
    host::fail("{}: tie_word_embeddings is not supported for Phi", json.where());
  }
}

}  // namespace

Phi2Config Phi2Config::parse(const host::JsonObject& json) {
  require_supported(json);
  Phi2Config config;
  config.read_shape(json);
  config.layer_norm_eps = static_cast<float>(json.number("layer_norm_eps", 1e-5, 0, 1));
  const double factor = json.number("partial_rotary_factor", 0.5, 0, 1);
  config.rotary_dims = static_cast<int>(factor * config.head_dim());
  if (config.rotary_dims % 2 != 0) {
    host::fail("{}: partial_rotary_factor {} of a head of {} is not an even number of dimensions",
               json.where(), factor, config.head_dim());
  }
  return config;
}

Phi2Weights Phi2Weights::read(TensorReader& reader, const std::string& prefix,
                              const Phi2Config& config) {
  const int64_t hidden = config.hidden_size;
  Phi2Weights weights;
  weights.embed_tokens =
      reader.require(prefix + "model.embed_tokens.weight", {config.vocab_size, hidden});
  for (int i = 0; i < config.num_hidden_layers; ++i) {
    const std::string scope = fmt::format("{}model.layers.{}.", prefix, i);
    Layer layer;
    layer.norm_weight = reader.require(scope + "input_layernorm.weight", {hidden});
    layer.norm_bias = reader.require(scope + "input_layernorm.bias", {hidden});
    reader.require_linear(scope + "self_attn.q_proj", hidden, hidden, layer.qkv);
    reader.require_linear(scope + "self_attn.k_proj", config.kv_width(), hidden, layer.qkv);
    reader.require_linear(scope + "self_attn.v_proj", config.kv_width(), hidden, layer.qkv);
    reader.require_linear(scope + "self_attn.dense", hidden, hidden, layer.dense);
    reader.require_linear(scope + "mlp.fc1", config.intermediate_size, hidden, layer.fc1);
    reader.require_linear(scope + "mlp.fc2", hidden, config.intermediate_size, layer.fc2);
    weights.layers.push_back(std::move(layer));
  }
  weights.final_norm_weight = reader.require(prefix + "model.final_layernorm.weight", {hidden});
  weights.final_norm_bias = reader.require(prefix + "model.final_layernorm.bias", {hidden});
  weights.lm_head.weights = {
      reader.require(prefix + "lm_head.weight", {config.vocab_size, hidden})};
  if (config.lm_head_bias) {
    weights.lm_head.biases = {reader.require(prefix + "lm_head.bias", {config.vocab_size})};
  }
  return weights;
}

Phi2::Phi2(kernels::Ops& ops, const Phi2Config& config, const Phi2Weights& weights,
           const DecoderLimits& limits)
    : LayeredDecoder(ops, config, config.rotary_dims, weights.layers.back().qkv, limits),
      ops_(ops),
      embed_tokens_(ops.load(weights.embed_tokens)),
      final_norm_{ops.load(weights.final_norm_weight), ops.load(weights.final_norm_bias),
                  config.layer_norm_eps},
      lm_head_(ops.load_linear(weights.lm_head)) {
  for (const Phi2Weights::Layer& layer : weights.layers) {
    layers_.push_back(
        {{ops.load(layer.norm_weight), ops.load(layer.norm_bias), config.layer_norm_eps},
         ops.load_linear(layer.qkv),
         ops.load_linear(layer.dense),
         ops.load_linear(layer.fc1),
         ops.load_linear(layer.fc2)});
  }
  hidden_ = activation(config.intermediate_size, kernels::input_dtype(ops, layers_, &Layer::fc2));
}

void Phi2::embed(std::span<const int32_t> ids, const Tensor& out) {
  ops_.embed(embed_tokens_, ids, out);
}

void Phi2::run_layer(int index, const Tensor& x, const Tensor& h,
                     std::span<const Segment> segments) {
  const Layer& layer = layers_[index];
  const Tensor mlp = hidden_.row_range(0, x.rows);
  const std::array<Projection, 2> projections = {
      {{layer.qkv, nullptr, qkv(x.rows)}, {layer.fc1, nullptr, mlp, Epilogue::kGeluTanh}}};
  ops_.project(x, &layer.norm, projections, h);
  const Tensor context = attend(index, x.rows, segments);
  const std::array<Term, 2> terms = {{{context, layer.dense}, {mlp, layer.fc2}}};
  ops_.linear_sum(terms, x);  // x += attention + mlp
}

void Phi2::logits(const Tensor& rows, const Tensor& out) {
  const Projection logits = {lm_head_, nullptr, out};
  ops_.project(rows, &final_norm_, {&logits, 1}, rows);
}

}  // namespace ocelli::llm
