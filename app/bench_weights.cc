#include "app/bench_weights.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include "host/error.h"
#include "host/json.h"
#include "llm/random.h"

namespace ocelli::app {

using kernels::DType;
using kernels::HostTensor;
using kernels::LinearSource;

namespace {

constexpr int64_t kAlignment = 64;
// Memory is filled piece by piece from patterns, at another place of the pattern each time.
constexpr int64_t kPatternBytes = int64_t{4} << 20;
constexpr int64_t kPieceBytes = int64_t{1} << 18;
constexpr size_t kPiecesAtOnce = 512;
// Uniform in ±kRange has the deviation 0.02 that such models are initialised with.
constexpr float kRange = 0.035F;

const std::map<std::string, const char*>& preset_texts() {
  static const std::map<std::string, const char*> texts = {
      {"tinyllava-3.1b", R"({"model_type": "tinyllava", "tokenizer_model_max_length": 3072,
          "vision_config": {"hidden_size": 1152, "image_size": 384, "intermediate_size": 4304,
              "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14},
          "text_config": {"model_type": "phi", "hidden_size": 2560, "intermediate_size": 10240,
              "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 51200,
              "partial_rotary_factor": 0.4}})"},
      {"phi-2", R"({"model_type": "phi", "hidden_size": 2560, "intermediate_size": 10240,
          "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 51200,
          "partial_rotary_factor": 0.4})"},
      {"stories15m", R"({"model_type": "llama", "hidden_size": 288, "intermediate_size": 768,
          "num_hidden_layers": 6, "num_attention_heads": 6, "vocab_size": 32000,
          "max_position_embeddings": 256, "tie_word_embeddings": true})"},
      {"stories110m", R"({"model_type": "llama", "hidden_size": 768, "intermediate_size": 2048,
          "num_hidden_layers": 12, "num_attention_heads": 12, "vocab_size": 32000,
          "max_position_embeddings": 1024, "tie_word_embeddings": true})"},
  };
  return texts;
}

DType dtype_of(WeightFormat format) {
  constexpr std::array<DType, 6> kDTypes = {DType::kF32, DType::kF16, DType::kBF16,
                                            DType::kI8,  DType::kI8,  DType::kI8};
  return kDTypes[static_cast<size_t>(format)];
}

// Values of a row of `inputs` that share a scale. 32 is what llama2.c falls back to.
int group_of(WeightFormat format, int64_t inputs) {
  if (format == WeightFormat::kQ8) {
    for (const int group : {64, 32}) {
      if (inputs % group == 0) return group;
    }
  }
  return static_cast<int>(inputs);
}

int64_t round_up(int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Stores `value` at `out` as `dtype`; an int8 is value · 127 / kRange.
void store(float value, DType dtype, std::byte* out) {
  switch (dtype) {
    case DType::kF16: {
      const uint16_t half = kernels::f32_to_f16(value);
      std::memcpy(out, &half, sizeof half);
      return;
    }
    case DType::kBF16:  // little-endian: the upper half of an fp32
      std::memcpy(out, reinterpret_cast<const std::byte*>(&value) + 2, 2);
      return;
    case DType::kI8:
      *out = static_cast<std::byte>(static_cast<int8_t>(value * (127 / kRange)));
      return;
    default:
      std::memcpy(out, &value, sizeof value);
  }
}

// Makes the factors of a matrix of int4 some of 8 … 15, and 0 where there is none.
void put_factors(const HostTensor& matrix) {
  const kernels::PanelShape shape = matrix.panel_shape();
  const int64_t used = int64_t{shape.factors()} * kernels::kPanelOutputs;
  for (int panel = 0; panel < shape.panels(); ++panel) {
    auto* factors = const_cast<std::byte*>(matrix.data) + panel * shape.panel_bytes();
    for (int64_t i = 0; i < int64_t{shape.factor_lines()} * kernels::kStepBytes; ++i) {
      factors[i] = i < used ? (factors[i] & std::byte{7}) | std::byte{8} : std::byte{0};
    }
  }
}

}  // namespace

const std::vector<std::string>& preset_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> found;
    for (const auto& [name, text] : preset_texts()) found.push_back(name);
    return found;
  }();
  return names;
}

ModelConfig preset_config(const std::string& name) {
  const char* text = preset_texts().at(name);
  return ModelConfig::parse(host::JsonObject(host::parse_json(text, name), name));
}

const std::vector<std::string>& weight_format_names() {
  static const std::vector<std::string> names = {"f32", "f16", "bf16", "int8", "q8_0", "int4"};
  return names;
}

RandomWeights::RandomWeights(const ModelConfig& config, WeightFormat format, int factor_group)
    : config_(config), format_(format), factor_group_(factor_group) {
  make();
  bytes_ = taken_;
}

std::byte* RandomWeights::take(int64_t bytes, Content content) {
  std::byte* data = nullptr;
  if (memory_) {
    data = memory_->data() + taken_;
    stretches_.push_back({data, bytes, content});
  }
  taken_ += round_up(bytes);
  return data;
}

HostTensor RandomWeights::floats(std::vector<int64_t> shape, Content content) {
  HostTensor tensor;
  tensor.name = "random";
  tensor.shape = std::move(shape);
  tensor.data = take(tensor.bytes(), content);
  return tensor;
}

HostTensor RandomWeights::matrix(int64_t outputs, int64_t inputs) {
  HostTensor tensor;
  tensor.name = "random";
  tensor.dtype = dtype_of(format_);
  tensor.shape = {outputs, inputs};
  tensor.data = take(tensor.bytes(), Content::kMatrix);
  if (tensor.dtype == DType::kI8) {
    tensor.group = group_of(format_, inputs);
    const int64_t scales = tensor.elements() / tensor.group;
    tensor.scales =
        reinterpret_cast<const float*>(take(scales * int64_t{sizeof(float)}, Content::kScales));
  }
  return tensor;
}

HostTensor RandomWeights::multiplied(int64_t outputs, int64_t inputs) {
  if (format_ != WeightFormat::kBF16) return matrix(outputs, inputs);
  HostTensor tensor = {.name = "random", .dtype = DType::kBF16, .shape = {outputs, inputs}};
  tensor.layout = kernels::Layout::kPanels;
  tensor.data = take(tensor.bytes(), Content::kMatrix);
  return tensor;
}

LinearSource RandomWeights::linear(const std::vector<int64_t>& outputs, int64_t inputs,
                                   bool biases) {
  LinearSource source;
  for (const int64_t count : outputs) {
    source.weights.push_back(multiplied(count, inputs));
    if (biases) source.biases.push_back(floats({count}, Content::kSmall));
  }
  return source;
}

LinearSource RandomWeights::layer(const std::vector<int64_t>& outputs, int64_t inputs,
                                  bool biases) {
  if (format_ != WeightFormat::kInt4) return linear(outputs, inputs, biases);
  LinearSource source;
  for (const int64_t count : outputs) {
    HostTensor tensor = {.name = "random", .dtype = DType::kI8, .shape = {count, inputs}};
    tensor.group = static_cast<int>(inputs);
    tensor.layout = kernels::Layout::kPanels;
    tensor.factor_group = factor_group_;
    tensor.data = take(tensor.bytes(), Content::kNibbles);
    source.weights.push_back(tensor);
    if (memory_) int4_.push_back(tensor);
  }
  // One behind the other, as in a file: so they are one matrix.
  for (HostTensor& tensor : source.weights) {
    const int64_t bytes = tensor.panel_shape().scales() * int64_t{sizeof(float)};
    tensor.scales = reinterpret_cast<const float*>(take(bytes, Content::kInt4Scales));
  }
  if (biases) {
    for (const int64_t count : outputs) source.biases.push_back(floats({count}, Content::kSmall));
  }
  return source;
}

vision::SiglipWeights RandomWeights::make_siglip(const vision::SiglipConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t intermediate = config.intermediate_size;
  vision::SiglipWeights weights;
  weights.patch_embedding = linear({hidden}, config.patch_values(), true);
  weights.position_embedding = floats({config.patches(), hidden}, Content::kSmall);
  for (int i = 0; i < config.blocks; ++i) {
    weights.layers.push_back({floats({hidden}, Content::kNorm), floats({hidden}, Content::kSmall),
                              floats({hidden}, Content::kNorm), floats({hidden}, Content::kSmall),
                              linear({hidden, hidden, hidden}, hidden, true),
                              linear({hidden}, hidden, true), linear({intermediate}, hidden, true),
                              linear({hidden}, intermediate, true)});
  }
  return weights;
}

connector::MlpWeights RandomWeights::make_connector(const connector::MlpConfig& config) {
  connector::MlpWeights weights;
  for (int i = 0; i < config.depth; ++i) {
    const int inputs = i == 0 ? config.vision_size : config.text_size;
    weights.layers.push_back(linear({config.text_size}, inputs, true));
  }
  return weights;
}

llm::Phi2Weights RandomWeights::make_phi2(const llm::Phi2Config& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t intermediate = config.intermediate_size;
  llm::Phi2Weights weights;
  weights.embed_tokens = matrix(config.vocab_size, hidden);
  for (int i = 0; i < config.num_hidden_layers; ++i) {
    weights.layers.push_back({floats({hidden}, Content::kNorm), floats({hidden}, Content::kSmall),
                              layer({hidden, config.kv_width(), config.kv_width()}, hidden, true),
                              layer({hidden}, hidden, true), layer({intermediate}, hidden, true),
                              layer({hidden}, intermediate, true)});
  }
  weights.final_norm_weight = floats({hidden}, Content::kNorm);
  weights.final_norm_bias = floats({hidden}, Content::kSmall);
  weights.lm_head = linear({config.vocab_size}, hidden, config.lm_head_bias);
  return weights;
}

llm::Llama2Weights RandomWeights::make_llama2(const llm::Llama2Config& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t intermediate = config.intermediate_size;
  llm::Llama2Weights weights;
  weights.embed_tokens = matrix(config.vocab_size, hidden);
  for (int i = 0; i < config.num_hidden_layers; ++i) {
    weights.layers.push_back({floats({hidden}, Content::kNorm),
                              layer({hidden, config.kv_width(), config.kv_width()}, hidden, false),
                              layer({hidden}, hidden, false), floats({hidden}, Content::kNorm),
                              layer({intermediate}, hidden, false),
                              layer({intermediate}, hidden, false),
                              layer({hidden}, intermediate, false)});
  }
  weights.norm = floats({hidden}, Content::kNorm);
  if (config.tie_word_embeddings) {
    weights.lm_head.weights = {weights.embed_tokens};
  } else {
    weights.lm_head = linear({config.vocab_size}, hidden, false);
  }
  return weights;
}

ModelWeights RandomWeights::make() {
  taken_ = 0;
  ModelWeights weights;
  if (config_.vision) {
    weights.siglip = make_siglip(config_.vision->siglip);
    weights.connector = make_connector(config_.vision->connector);
  }
  if (const auto* phi = std::get_if<llm::Phi2Config>(&config_.text)) {
    weights.text = make_phi2(*phi);
  } else {
    weights.text = make_llama2(std::get<llm::Llama2Config>(config_.text));
  }
  return weights;
}

std::vector<std::byte> RandomWeights::pattern(Content content) const {
  const DType dtype = content == Content::kMatrix ? dtype_of(format_) : DType::kF32;
  llm::Random random(static_cast<uint64_t>(content) + 1);
  std::vector<std::byte> bytes(kPatternBytes);
  if (content == Content::kNibbles) {
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.next() >> 56);
    return bytes;
  }
  for (int64_t i = 0; i < kPatternBytes; i += kernels::bytes_per_element(dtype)) {
    const float uniform = 2 * static_cast<float>(random.uniform()) - 1;
    float value = kRange * uniform;
    if (content == Content::kNorm) value = 1 + 0.1F * uniform;
    if (content == Content::kScales) value = kRange / 127 * (1 + 0.5F * uniform);
    if (content == Content::kInt4Scales) value = kRange / 88 * (1 + 0.5F * uniform);
    store(value, dtype, bytes.data() + i);
  }
  return bytes;
}

ModelWeights RandomWeights::fill(host::ThreadPool& pool, const std::function<void(int64_t)>& done) {
  memory_ = std::make_unique<kernels::HostStorage>(bytes_);
  stretches_.clear();
  int4_.clear();
  ModelWeights weights = make();

  std::vector<Stretch> pieces;
  for (const Stretch& stretch : stretches_) {
    for (int64_t at = 0; at < stretch.bytes; at += kPieceBytes) {
      const int64_t bytes = std::min(kPieceBytes, stretch.bytes - at);
      pieces.push_back({stretch.data + at, bytes, stretch.content});
    }
  }
  std::array<std::vector<std::byte>, kContents> patterns;
  pool.parallel_for(kContents, [&](int i, int) { patterns[i] = pattern(static_cast<Content>(i)); });
  for (size_t first = 0; first < pieces.size(); first += kPiecesAtOnce) {
    const size_t count = std::min(kPiecesAtOnce, pieces.size() - first);
    pool.parallel_for(static_cast<int>(count), [&](int i, int) {
      const Stretch& piece = pieces[first + i];
      uint64_t seed = first + i;
      const uint64_t places = (kPatternBytes - kPieceBytes) / kAlignment;
      const uint64_t offset = llm::splitmix64(seed) % places * kAlignment;
      std::memcpy(piece.data, patterns[static_cast<size_t>(piece.content)].data() + offset,
                  piece.bytes);
    });
    const Stretch& last = pieces[first + count - 1];
    done(last.data + last.bytes - memory_->data());
  }
  pool.parallel_for(static_cast<int>(int4_.size()), [&](int i, int) { put_factors(int4_[i]); });
  return weights;
}

}  // namespace ocelli::app
