#include "llm/phi2.h"

#include <array>
#include <cmath>

#include "host/error.h"
#include "llm/rope.h"

namespace ocelli::llm {

using kernels::DType;
using kernels::Epilogue;
using kernels::Placement;
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
  if (json.contains("rope_scaling")) {
    host::fail("{}: rope_scaling is not supported", json.where());
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
    : LayeredDecoder(ops, config, limits),
      ops_(ops),
      config_(config),
      embed_tokens_(ops.load(weights.embed_tokens)),
      final_norm_{ops.load(weights.final_norm_weight), ops.load(weights.final_norm_bias),
                  config.layer_norm_eps},
      lm_head_(ops.load_linear(weights.lm_head)),
      cache_(ops, kv_cache_shape(config, limits)) {
  const auto activation = [&](int rows, int cols) {
    return ops.tensor(rows, cols, DType::kF32, Placement::kActivation);
  };
  qkv_ = activation(limits.max_rows, config.hidden_size + 2 * config.kv_width());
  context_ = activation(limits.max_rows, config.hidden_size);
  if (config.rotary_dims > 0) {
    rope_ = make_rope_table(ops, limits.capacity, config.rotary_dims, config.rope_theta);
  }
  for (const Phi2Weights::Layer& layer : weights.layers) {
    precision_ = kernels::attention_precision(layer.qkv);
    layers_.push_back(
        {{ops.load(layer.norm_weight), ops.load(layer.norm_bias), config.layer_norm_eps},
         ops.load_linear(layer.qkv),
         ops.load_linear(layer.dense),
         ops.load_linear(layer.fc1),
         ops.load_linear(layer.fc2)});
  }
  last_kv_ = ops.load_linear(weights.layers.back().qkv.from(1));
  hidden_ = ops.tensor(limits.max_rows, config.intermediate_size,
                       kernels::input_dtype(ops, layers_, &Layer::fc2), Placement::kActivation);
}

void Phi2::embed(std::span<const int32_t> ids, const Tensor& out) {
  ops_.embed(embed_tokens_, ids, out);
}

void Phi2::run_layer(int index, const Tensor& x, const Tensor& h,
                     std::span<const Segment> segments) {
  const Tensor qkv = qkv_.row_range(0, x.rows);
  const Tensor q = qkv.column_range(0, config_.hidden_size);
  const Tensor context = context_.row_range(0, x.rows);
  const Tensor mlp = hidden_.row_range(0, x.rows);
  const kernels::AttentionShape shape = {
      .heads = config_.num_attention_heads,
      .kv_heads = config_.num_key_value_heads,
      .head_dim = config_.head_dim(),
      .scale = 1 / std::sqrt(static_cast<float>(config_.head_dim())),
      .causal = true,
      .capacity = limits().capacity,
      .precision = precision_};

  const Layer& layer = layers_[index];
  const std::array<Projection, 2> projections = {
      {{layer.qkv, nullptr, qkv}, {layer.fc1, nullptr, mlp, Epilogue::kGeluTanh}}};
  ops_.project(x, &layer.norm, projections, h);
  cache_.append_rotated(index, qkv, rope_, segments);
  ops_.attention(q, cache_.keys(index), cache_.values(index), shape, segments, context);
  const std::array<Term, 2> terms = {{{context, layer.dense}, {mlp, layer.fc2}}};
  ops_.linear_sum(terms, x);  // x += attention + mlp
}

void Phi2::append_last(const Tensor& x, const Tensor& h, std::span<const Segment> segments) {
  const int last = config_.num_hidden_layers - 1;
  const Tensor kv =
      qkv_.row_range(0, x.rows).column_range(config_.hidden_size, 2 * config_.kv_width());
  const Projection to_kv = {last_kv_, nullptr, kv};
  ops_.project(x, &layers_[last].norm, {&to_kv, 1}, h);
  cache_.append_rotated(last, kv, rope_, segments);
}

void Phi2::logits(const Tensor& rows, const Tensor& out) {
  const Projection logits = {lm_head_, nullptr, out};
  ops_.project(rows, &final_norm_, {&logits, 1}, rows);
}

}  // namespace ocelli::llm
