#include "llm/llama2.h"

#include <cstring>

#include "host/error.h"

namespace ocelli::llm {

using kernels::Epilogue;
using kernels::HostTensor;
using kernels::Projection;
using kernels::Segment;
using kernels::Tensor;
using kernels::TensorReader;

namespace {

void require_supported(const host::JsonObject& json) {
  const std::string activation = json.string("hidden_act", "silu");
  if (activation != "silu") {
    host::fail("{}: hidden_act '{}' is not supported: Llama uses silu", json.where(),
               host::printable(activation));
  }
  for (const char* bias : {"attention_bias", "mlp_bias"}) {
    if (json.boolean(bias, false)) host::fail("{}: {} is not supported", json.where(), bias);
  }
}

// A copy of a matrix whose rows are those of `source` in the order in which each head's dimensions
// 0, 2, 4, … come first and 1, 3, 5, … follow: neighbours become halves.
HostTensor halve_pairs(const HostTensor& source, int head_dim,
                       std::vector<std::shared_ptr<const std::byte[]>>& memory) {
  if (source.data == nullptr) return source;  // missing: finish() will say so
  const int64_t rows = source.shape[0];
  const int64_t row_bytes = source.bytes() / rows;
  const int64_t row_scales = source.quantised() ? source.shape[1] / source.group : 0;
  const int64_t scale_bytes = row_scales * static_cast<int64_t>(sizeof(float));
  // Scales first: they need the alignment.
  const auto copy = std::make_shared_for_overwrite<std::byte[]>(rows * (row_bytes + scale_bytes));
  HostTensor permuted = source;
  permuted.data = copy.get() + rows * scale_bytes;
  if (source.quantised()) permuted.scales = reinterpret_cast<const float*>(copy.get());
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t in_head = row % head_dim;
    const int64_t pair = in_head % (head_dim / 2);
    const int64_t from = row - in_head + 2 * pair + (in_head < head_dim / 2 ? 0 : 1);
    std::memcpy(copy.get() + rows * scale_bytes + row * row_bytes, source.data + from * row_bytes,
                row_bytes);
    if (source.quantised()) {
      std::memcpy(copy.get() + row * scale_bytes, source.scales + from * row_scales, scale_bytes);
    }
  }
  memory.push_back(copy);
  return permuted;
}

}  // namespace

Llama2Config Llama2Config::parse(const host::JsonObject& json) {
  require_supported(json);
  Llama2Config config;
  config.read_shape(json);
  config.rms_norm_eps = static_cast<float>(json.number("rms_norm_eps", 1e-6, 0, 1));
  config.tie_word_embeddings = json.boolean("tie_word_embeddings", false);
  if (config.head_dim() % 2 != 0) {
    host::fail("{}: heads of {} dimensions cannot be rotated in pairs", json.where(),
               config.head_dim());
  }
  if (json.integer("head_dim", config.head_dim(), 1, 1 << 20) != config.head_dim()) {
    host::fail("{}: a head_dim other than hidden_size / num_attention_heads is not supported",
               json.where());
  }
  return config;
}

Llama2Config Llama2Config::from_llama2c(const kernels::Llama2cHeader& header) {
  Llama2Config config;
  config.hidden_size = header.dim;
  config.intermediate_size = header.hidden_dim;
  config.num_hidden_layers = header.n_layers;
  config.num_attention_heads = header.n_heads;
  config.num_key_value_heads = header.n_kv_heads;
  config.vocab_size = header.vocab_size;
  config.max_position_embeddings = header.seq_len;
  config.rms_norm_eps = 1e-5F;
  config.tie_word_embeddings = header.shared_classifier;
  config.pairs = RotaryPairs::kInterleaved;
  return config;
}

Llama2Weights Llama2Weights::read(TensorReader& reader, const Llama2Config& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t intermediate = config.intermediate_size;
  Llama2Weights weights;
  const auto rotated = [&](kernels::LinearSource& source) {
    if (config.pairs == RotaryPairs::kHalved) return;
    source.weights.back() = halve_pairs(source.weights.back(), config.head_dim(), weights.permuted);
  };
  weights.embed_tokens = reader.require("model.embed_tokens.weight", {config.vocab_size, hidden});
  for (int i = 0; i < config.num_hidden_layers; ++i) {
    const std::string scope = fmt::format("model.layers.{}.", i);
    const std::string attention = scope + "self_attn.";
    Layer layer;
    layer.input_layernorm = reader.require(scope + "input_layernorm.weight", {hidden});
    reader.require_matrix(attention + "q_proj.weight", hidden, hidden, layer.qkv);
    rotated(layer.qkv);
    reader.require_matrix(attention + "k_proj.weight", config.kv_width(), hidden, layer.qkv);
    rotated(layer.qkv);
    reader.require_matrix(attention + "v_proj.weight", config.kv_width(), hidden, layer.qkv);
    reader.require_matrix(attention + "o_proj.weight", hidden, hidden, layer.o_proj);
    layer.post_attention_layernorm =
        reader.require(scope + "post_attention_layernorm.weight", {hidden});
    reader.require_matrix(scope + "mlp.gate_proj.weight", intermediate, hidden, layer.gate_proj);
    reader.require_matrix(scope + "mlp.up_proj.weight", intermediate, hidden, layer.up_proj);
    reader.require_matrix(scope + "mlp.down_proj.weight", hidden, intermediate, layer.down_proj);
    weights.layers.push_back(std::move(layer));
  }
  weights.norm = reader.require("model.norm.weight", {hidden});
  if (config.tie_word_embeddings) {
    weights.lm_head.weights = {weights.embed_tokens};
  } else {
    reader.require_matrix("lm_head.weight", config.vocab_size, hidden, weights.lm_head);
  }
  return weights;
}

Llama2::Llama2(kernels::Ops& ops, const Llama2Config& config, const Llama2Weights& weights,
               const DecoderLimits& limits)
    : LayeredDecoder(ops, config, config.head_dim(), weights.layers.back().qkv, limits),
      ops_(ops),
      rms_norm_eps_(config.rms_norm_eps),
      permuted_(weights.permuted),
      embed_tokens_(ops.load(weights.embed_tokens)),
      norm_(load_norm(weights.norm)),
      lm_head_(ops.load_linear(weights.lm_head)),
      hidden_(activation(config.intermediate_size)) {
  for (const Llama2Weights::Layer& layer : weights.layers) {
    layers_.push_back({load_norm(layer.input_layernorm), ops.load_linear(layer.qkv),
                       ops.load_linear(layer.o_proj), load_norm(layer.post_attention_layernorm),
                       ops.load_linear(layer.gate_proj), ops.load_linear(layer.up_proj),
                       ops.load_linear(layer.down_proj)});
  }
}

kernels::Norm Llama2::load_norm(const HostTensor& weight) const {
  return {ops_.load(weight), {}, rms_norm_eps_};
}

void Llama2::embed(std::span<const int32_t> ids, const Tensor& out) {
  ops_.embed(embed_tokens_, ids, out);
}

void Llama2::run_layer(int index, const Tensor& x, const Tensor& h,
                       std::span<const Segment> segments) {
  const Layer& layer = layers_[index];
  const Tensor mlp_hidden = hidden_.row_range(0, x.rows);
  const Projection to_qkv = {layer.qkv, nullptr, qkv(x.rows)};
  ops_.project(x, &layer.input_layernorm, {&to_qkv, 1}, h);
  const Tensor context = attend(index, x.rows, segments);
  ops_.linear(context, layer.o_proj, x, Epilogue::kAccumulate);  // x += attention
  const Projection to_hidden = {layer.gate_proj, layer.up_proj, mlp_hidden, Epilogue::kSilu};
  ops_.project(x, &layer.post_attention_layernorm, {&to_hidden, 1}, h);
  ops_.linear(mlp_hidden, layer.down_proj, x, Epilogue::kAccumulate);  // x += mlp
}

void Llama2::logits(const Tensor& rows, const Tensor& out) {
  const Projection logits = {lm_head_, nullptr, out};
  ops_.project(rows, &norm_, {&logits, 1}, rows);
}

}  // namespace ocelli::llm
