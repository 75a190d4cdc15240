#include "app/pack_model.h"

#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "app/model_parts.h"
#include "host/error.h"
#include "kernels/packed_file.h"
#include "kernels/packing.h"
#include "kernels/pair_packing.h"
#include "kernels/quantise.h"

namespace ocelli::app {
namespace {

using host::fail;
using kernels::DType;
using kernels::HostTensor;
using kernels::LinearSource;
using kernels::PackedStack;
using kernels::PanelFormat;
using nlohmann::json;

constexpr const char* kHeadName = "lm_head.weight";

// Whether the decoder's last matrix is its embedding too.
bool is_tied(const ModelConfig& config) {
  const auto* llama = std::get_if<llm::Llama2Config>(&config.text);
  return llama != nullptr && llama->tie_word_embeddings;
}

// What a file of llama2.c says of itself, as a config.json: its rows of q and k come in Llama's
// order.
json config_of(const llm::Llama2Config& config) {
  return {{"model_type", "llama"},
          {"hidden_size", config.hidden_size},
          {"intermediate_size", config.intermediate_size},
          {"num_hidden_layers", config.num_hidden_layers},
          {"num_attention_heads", config.num_attention_heads},
          {"num_key_value_heads", config.num_key_value_heads},
          {"vocab_size", config.vocab_size},
          {"max_position_embeddings", config.max_position_embeddings},
          // Written as people do: a float's digits as a double are many.
          {"rms_norm_eps", std::stod(fmt::format("{}", config.rms_norm_eps))},
          {"rope_theta", config.rope_theta},
          {"tie_word_embeddings", config.tie_word_embeddings}};
}

std::string config_text(const OpenedModel& model, bool unties) {
  std::string text = model.config_text;
  if (text.empty()) text = config_of(std::get<llm::Llama2Config>(model.config.text)).dump();
  if (!unties) return text;
  json config = host::parse_json(text, model.path.string());
  config["tie_word_embeddings"] = false;
  return config.dump();
}

std::string source_text(const OpenedModel& model, const PackSettings& settings) {
  json files = json::array();
  for (const auto& file : model.checkpoint.files()) {
    files.push_back(
        {{"name", file.filename().string()}, {"bytes", std::filesystem::file_size(file)}});
  }
  json source = {{"files", files},
                 {"weights", weights_name(settings)},
                 {"group", settings.factor_group > 0 ? settings.factor_group : settings.group},
                 {"head", head_name(settings.head)},
                 {"embedding", embedding_name(settings.embedding)}};
  return source.dump(-1, ' ', false, json::error_handler_t::replace);
}

// What becomes of the matrices of the vision tower and the connector, of the decoder's, and of its
// last one where that is packed.
PanelFormat vision_format(const PackSettings& settings) {
  return {.group = settings.group};
}
PanelFormat decoder_format(const PackSettings& settings) {
  return {.group = settings.group, .factor_group = settings.factor_group};
}
PanelFormat head_format(const PackSettings& settings) {
  if (settings.head != HeadFormat::kInt4) return vision_format(settings);
  return {.factor_group = settings.factor_group > 0 ? settings.factor_group : kUsualFactorGroup};
}

// A matrix that is to be packed, as it will be in the file but for its bytes.
HostTensor planned(const HostTensor& matrix, const PanelFormat& format) {
  HostTensor plan = {.name = matrix.name, .dtype = DType::kI8, .shape = matrix.shape};
  const kernels::PanelShape shape = PackedStack::shape_of(matrix, format);
  plan.group = shape.group;
  plan.factor_group = shape.factor_group;
  plan.layout = kernels::Layout::kPanels;
  return plan;
}

std::span<const std::byte> bytes_of(const HostTensor& tensor) {
  return {tensor.data, static_cast<size_t>(tensor.bytes())};
}
std::span<const std::byte> scales_of(const HostTensor& tensor) {
  return std::as_bytes(std::span(tensor.scales, static_cast<size_t>(tensor.scale_count())));
}

// The bytes of an fp32 tensor as fp16. Throws Error when one does not fit.
std::vector<uint16_t> to_f16(const HostTensor& source, const char* instead) {
  std::vector<uint16_t> halves(source.elements());
  constexpr uint16_t kExponent = 0x7C00;
  for (size_t i = 0; i < halves.size(); ++i) {
    float value;
    std::memcpy(&value, source.data + i * sizeof value, sizeof value);
    halves[i] = kernels::f32_to_f16(value);
    if ((halves[i] & kExponent) == kExponent) {
      fail("\"{}\" holds {}, which fp16 does not: use {}", host::printable(source.name, 200), value,
           instead);
    }
  }
  return halves;
}

// A table as it becomes under --embedding int8, but for its bytes.
HostTensor planned_table(const HostTensor& table, const PackSettings& settings) {
  HostTensor plan = {.name = table.name, .dtype = DType::kI8, .shape = table.shape};
  plan.group = kernels::fitting_group(settings.group, table.shape[1]);
  return plan;
}

// A table of floats in rows of int8.
struct QuantisedRows {
  QuantisedRows(const HostTensor& table, int group)
      : values(table.elements()), scales(table.elements() / group) {
    const int64_t cols = table.shape[1];
    std::vector<float> row(cols);
    for (int64_t r = 0; r < table.shape[0]; ++r) {
      const int64_t first = r * cols;
      convert_to_f32(table.dtype, table.data + first * bytes_per_element(table.dtype), cols,
                     row.data());
      if (!kernels::quantise_row(row.data(), cols, group, values.data() + first,
                                 scales.data() + first / group)) {
        kernels::refuse_non_finite(table);
      }
    }
  }

  std::vector<int8_t> values;
  std::vector<float> scales;
};

// Plans and then writes the parts of a model, in one order.
class Packer {
 public:
  Packer(const OpenedModel& model, const PackSettings& settings, host::ThreadPool& pool)
      : model_(model), settings_(settings), pool_(pool) {
    kernels::TensorReader reader(model.checkpoint);
    weights_ = read_weights(reader, model.config);
    reader.finish();
    unties_ = is_tied(model.config) && settings.head != HeadFormat::kF16;
    if (settings.embedding != EmbeddingFormat::kSource && is_tied(model.config) && !unties_) {
      fail("{}: its embeddings are its last matrix too: --embedding wants --head int8 or int4",
           model.path.string());
    }
    name_as_in_file();
  }

  PackedSizes run(const PackTarget& target) {
    const llm::PackedTokenizer tokenizer =
        llm::pack_tokenizer(settings_.tokenizer.value_or(model_.tokenizer));
    writer_.set_metadata("config", config_text(model_, unties_));
    writer_.set_metadata("source", source_text(model_, settings_));
    writer_.set_metadata("tokenizer", tokenizer.kind);
    const auto tokenizer_bytes = static_cast<int64_t>(tokenizer.bytes.size());
    writer_.plan("ocelli.tokenizer", "U8", {tokenizer_bytes}, tokenizer_bytes);
    visit_parts(weights_,
                {[this](HostTensor& table) { plan_embedding(table); },
                 [this](HostTensor& tensor) { plan(tensor); },
                 [this](LinearSource& source) { plan_packed(source, vision_format(settings_)); },
                 [this](LinearSource& source) { plan_packed(source, decoder_format(settings_)); },
                 [this](LinearSource& source) { plan_head(source); }});
    const auto write = [&](std::string_view bytes) {
      target.write(bytes);
      target.progress(written_ += static_cast<int64_t>(bytes.size()));
    };
    std::string header;
    writer_.begin([&](std::string_view bytes) {
      if (header.empty()) {
        header = bytes;
      } else {
        write(bytes);
      }
    });
    target.begin(writer_.file_bytes());
    write(header);
    writer_.put(std::as_bytes(std::span(tokenizer.bytes)));
    visit_parts(weights_,
                {[this](HostTensor& table) { put_embedding(table); },
                 [this](HostTensor& tensor) { put(tensor); },
                 [this](LinearSource& source) { put_packed(source, vision_format(settings_)); },
                 [this](LinearSource& source) { put_packed(source, decoder_format(settings_)); },
                 [this](LinearSource& source) { put_head(source); }});
    writer_.finish();
    return {source_bytes_, writer_.file_bytes()};
  }

 private:
  // Matrices get their shapes in the source, which a model may have read as others of as many
  // values (a convolution); and a matrix that is tied no longer, its own name.
  void name_as_in_file() {
    const auto reshape = [this](LinearSource& source) {
      for (HostTensor& weight : source.weights) {
        weight.shape = model_.checkpoint.tensors().at(weight.name).shape;
      }
    };
    const auto leave = [](HostTensor&) {};
    visit_parts(weights_, {leave, leave, reshape, reshape, reshape});
    if (auto* llama = std::get_if<llm::Llama2Weights>(&weights_.text); llama && unties_) {
      llama->lm_head.weights[0].name = kHeadName;
    }
  }

  void count(const HostTensor& tensor) {
    source_bytes_ += tensor.bytes();
    if (tensor.quantised()) source_bytes_ += static_cast<int64_t>(scales_of(tensor).size());
  }

  void plan(const HostTensor& tensor) {
    count(tensor);
    if (!tensor.quantised()) return writer_.plan(tensor);
    writer_.plan_values(tensor);
    writer_.plan_scales(tensor);
  }
  void put(const HostTensor& tensor) {
    writer_.put(bytes_of(tensor));
    if (tensor.quantised()) writer_.put(scales_of(tensor));
  }

  // A tensor of fp32 becomes fp16, others stay as they are.
  void plan_half(HostTensor tensor) {
    if (tensor.dtype == DType::kF32) {
      source_bytes_ += tensor.bytes() / 2;  // and plan() counts the other half
      tensor.dtype = DType::kF16;
    }
    plan(tensor);
  }
  void put_half(const HostTensor& tensor, const char* instead) {
    if (tensor.dtype != DType::kF32) return put(tensor);
    const std::vector<uint16_t> halves = to_f16(tensor, instead);
    writer_.put(std::as_bytes(std::span(halves)));
  }

  bool makes_int8(const HostTensor& table) const {
    return settings_.embedding == EmbeddingFormat::kInt8 && !table.quantised();
  }
  void plan_embedding(const HostTensor& table) {
    if (settings_.embedding == EmbeddingFormat::kF16) return plan_half(table);
    if (!makes_int8(table)) return plan(table);
    count(table);
    writer_.plan_values(planned_table(table, settings_));
    writer_.plan_scales(planned_table(table, settings_));
  }
  void put_embedding(const HostTensor& table) {
    if (settings_.embedding == EmbeddingFormat::kF16) return put_half(table, "--embedding int8");
    if (!makes_int8(table)) return put(table);
    const QuantisedRows rows(table, planned_table(table, settings_).group);
    writer_.put(std::as_bytes(std::span(rows.values)));
    writer_.put(std::as_bytes(std::span(rows.scales)));
  }

  void plan_packed(const LinearSource& source, const PanelFormat& format) {
    if (settings_.bf16) return plan_pairs(source);
    for (const HostTensor& weight : source.weights) {
      count(weight);
      writer_.plan_values(planned(weight, format));
    }
    for (const HostTensor& weight : source.weights) {
      writer_.plan_scales(planned(weight, format));
    }
    for (const HostTensor& bias : source.biases) plan(bias);
  }
  void plan_pairs(const LinearSource& source) {
    for (const HostTensor& weight : source.weights) {
      count(weight);
      writer_.plan_pairs(kernels::planned_pairs(weight));
    }
    for (const HostTensor& bias : source.biases) plan(bias);
  }
  void put_packed(const LinearSource& source, const PanelFormat& format) {
    if (settings_.bf16) return put_pairs(source);
    const PackedStack stack(source, format, pool_);
    for (const HostTensor& weight : stack.weights()) writer_.put(bytes_of(weight));
    for (const HostTensor& weight : stack.weights()) writer_.put(scales_of(weight));
    for (const HostTensor& bias : source.biases) put(bias);
  }

  void put_pairs(const LinearSource& source) {
    const kernels::PairStack stack(source, pool_);
    for (const HostTensor& weight : stack.weights()) writer_.put(bytes_of(weight));
    for (const HostTensor& bias : source.biases) put(bias);
  }

  void plan_head(const LinearSource& source) {
    if (settings_.head != HeadFormat::kF16) {
      plan_packed(source, head_format(settings_));
      if (unties_) source_bytes_ -= source.weights[0].bytes();  // counted as the embedding
      return;
    }
    if (is_tied(model_.config)) return;
    plan_half(source.weights[0]);
    for (const HostTensor& bias : source.biases) plan(bias);
  }
  void put_head(const LinearSource& source) {
    if (settings_.head != HeadFormat::kF16) return put_packed(source, head_format(settings_));
    if (is_tied(model_.config)) return;
    put_half(source.weights[0], "--head int8");
    for (const HostTensor& bias : source.biases) put(bias);
  }

  const OpenedModel& model_;
  const PackSettings& settings_;
  host::ThreadPool& pool_;
  ModelWeights weights_;
  bool unties_ = false;
  kernels::PackedWriter writer_;
  int64_t source_bytes_ = 0;
  int64_t written_ = 0;
};

}  // namespace

const char* weights_name(const PackSettings& settings) {
  if (settings.bf16) return "bf16";
  return settings.factor_group > 0 ? "int4" : "int8";
}

const char* embedding_name(EmbeddingFormat embedding) {
  constexpr std::array<const char*, 3> kNames = {"source", "f16", "int8"};
  return kNames[static_cast<size_t>(embedding)];
}

const char* head_name(HeadFormat head) {
  constexpr std::array<const char*, 4> kNames = {"int8", "f16", "int4", "bf16"};
  return kNames[static_cast<size_t>(head)];
}

PackedSizes pack_model(const OpenedModel& model, const PackSettings& settings,
                       host::ThreadPool& pool, const PackTarget& target) {
  if (model.checkpoint.packed() != nullptr) {
    fail("{}: is packed already; name the model that it was made from", model.path.string());
  }
  return Packer(model, settings, pool).run(target);
}

void pack_in_memory(ModelWeights& weights, const PackSettings& settings, host::ThreadPool& pool,
                    PackedMemory& memory) {
  const auto pack = [&](LinearSource& source, const PanelFormat& format) {
    if (settings.bf16) {
      const auto stack = std::make_shared<kernels::PairStack>(source, pool);
      source.weights = stack->weights();
      memory.push_back(stack);
    } else {
      const auto stack = std::make_shared<PackedStack>(source, format, pool);
      source.weights = stack->weights();
      memory.push_back(stack);
    }
  };
  visit_parts(weights, {[](HostTensor&) {}, [](HostTensor&) {},
                        [&](LinearSource& source) { pack(source, vision_format(settings)); },
                        [&](LinearSource& source) { pack(source, decoder_format(settings)); },
                        [&](LinearSource& head) {
                          if (settings.head != HeadFormat::kF16) pack(head, head_format(settings));
                        }});
}

}  // namespace ocelli::app
