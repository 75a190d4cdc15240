#include "connector/mlp.h"

#include <charconv>

#include "host/error.h"

namespace ocelli::connector {

using kernels::DType;
using kernels::Epilogue;
using kernels::Placement;
using kernels::Tensor;

namespace {

// N of "mlpNx_gelu", or 0 when the text is something else or N is not in 1…64.
int mlp_depth(std::string_view type) {
  constexpr std::string_view kPrefix = "mlp";
  constexpr std::string_view kSuffix = "x_gelu";
  if (!type.starts_with(kPrefix) || !type.ends_with(kSuffix)) return 0;
  if (type.size() <= kPrefix.size() + kSuffix.size()) return 0;
  type = type.substr(kPrefix.size(), type.size() - kPrefix.size() - kSuffix.size());
  int depth = 0;
  const auto [end, error] = std::from_chars(type.data(), type.data() + type.size(), depth);
  const bool whole = error == std::errc() && end == type.data() + type.size();
  return whole && depth >= 1 && depth <= 64 ? depth : 0;
}

}  // namespace

MlpConfig MlpConfig::parse(const std::string& connector_type, int vision_size, int text_size) {
  if (connector_type == "linear") return {1, vision_size, text_size};
  if (connector_type == "identity") {
    if (vision_size != text_size) {
      host::fail("an identity connector cannot map {} vision features to {} of the text model",
                 vision_size, text_size);
    }
    return {0, vision_size, text_size};
  }
  const int depth = mlp_depth(connector_type);
  if (depth == 0) {
    host::fail("connector_type '{}' is not supported: use mlpNx_gelu, linear or identity",
               host::printable(connector_type));
  }
  return {depth, vision_size, text_size};
}

MlpWeights MlpWeights::read(kernels::TensorReader& reader, const std::string& prefix,
                            const MlpConfig& config) {
  MlpWeights weights;
  for (int i = 0; i < config.depth; ++i) {
    std::string module = fmt::format("{}{}", prefix, 2 * i);
    if (config.depth == 1 && !reader.contains(module + ".weight")) {
      module = prefix.substr(0, prefix.rfind('.'));
    }
    const int inputs = i == 0 ? config.vision_size : config.text_size;
    reader.require_linear(module, config.text_size, inputs, weights.layers.emplace_back());
  }
  return weights;
}

Mlp::Mlp(kernels::Ops& ops, const MlpConfig& config, const MlpWeights& weights, int max_rows)
    : ops_(ops), config_(config) {
  for (const kernels::LinearSource& layer : weights.layers) {
    layers_.push_back(ops.load_linear(layer));
  }
  for (Tensor& buffer : buffers_) {
    buffer = ops.tensor(max_rows, config.text_size, DType::kF32, Placement::kActivation);
  }
}

Tensor Mlp::forward(const Tensor& features) {
  Tensor x = features;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const bool last = i + 1 == layers_.size();
    const Tensor y = buffers_[i % 2].row_range(0, features.rows);
    ops_.linear(x, layers_[i], y, last ? Epilogue::kStore : Epilogue::kGeluErf);
    x = y;
  }
  return x;
}

}  // namespace ocelli::connector
