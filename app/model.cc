#include "app/model.h"

#include <cstdlib>
#include <utility>

#include "app/stopwatch.h"
#include "host/error.h"
#include "host/json.h"
#include "host/mapped_file.h"

namespace ocelli::app {

namespace fs = std::filesystem;
using host::JsonObject;

namespace {

constexpr const char* kTower = "vision_tower._vision_tower.vision_model.";
constexpr const char* kConnector = "connector._connector.";
constexpr const char* kLanguageModel = "language_model.";

// The tower that the older checkpoints name without describing it.
constexpr const char* kSo400m = R"({"hidden_size": 1152, "image_size": 384,
    "intermediate_size": 4304, "num_attention_heads": 16, "num_hidden_layers": 27,
    "patch_size": 14})";

AspectRatio parse_aspect(const JsonObject& json) {
  const std::string aspect = json.string("image_aspect_ratio", "square");
  if (aspect == "square") return AspectRatio::kSquare;
  if (aspect == "pad") return AspectRatio::kPad;
  host::fail("{}: image_aspect_ratio '{}' is not supported: use square or pad", json.where(),
             host::printable(aspect));
}

int parse_first_row(const JsonObject& json, const std::string& key) {
  const std::string select = json.string(key, "patch");
  if (select == "patch") return 1;
  if (select == "cls_patch") return 0;
  host::fail("{}: {} '{}' is not supported: use patch or cls_patch", json.where(), key,
             host::printable(select));
}

// What the two generations of TinyLLaVA configurations call the same things.
struct Keys {
  const char* feature_layer;
  const char* select_strategy;
  const char* connector_type;
  const char* default_connector;
};

VisionConfig parse_vision(const JsonObject& json, const JsonObject& tower, const Keys& keys,
                          int text_size) {
  const int feature_layer = json.integer(keys.feature_layer, -2, -4096, 4096);
  VisionConfig config;
  config.siglip = vision::SiglipConfig::parse(tower, feature_layer);
  config.connector =
      connector::MlpConfig::parse(json.string(keys.connector_type, keys.default_connector),
                                  config.siglip.hidden_size, text_size);
  config.aspect = parse_aspect(json);
  config.first_row = parse_first_row(json, keys.select_strategy);
  config.tower_prefix = kTower;
  config.connector_prefix = kConnector;
  if (config.image_rows() < 1) {
    host::fail("{}: one patch of which '{}' drops the first leaves nothing to see", json.where(),
               keys.select_strategy);
  }
  return config;
}

void require_phi(const JsonObject& text) {
  const std::string type = text.string("model_type", "phi");
  if (type != "phi") {
    host::fail("{}: the decoder '{}' is not supported: only phi is", text.where(),
               host::printable(type));
  }
}

ModelConfig parse_tinyllava(const JsonObject& json) {
  static constexpr Keys kKeys = {"vision_feature_layer", "vision_feature_select_strategy",
                                 "connector_type", "mlp2x_gelu"};
  const JsonObject text = json.object("text_config");
  require_phi(text);
  const auto phi = llm::Phi2Config::parse(text);
  ModelConfig config;
  config.vision = parse_vision(json, json.object("vision_config"), kKeys, phi.hidden_size);
  config.text = phi;
  return config;
}

ModelConfig parse_older_tinyllava(const JsonObject& json) {
  static constexpr Keys kKeys = {"mm_vision_select_layer", "mm_vision_select_feature",
                                 "mm_projector_type", "mlp2x_gelu"};
  auto phi = llm::Phi2Config::parse(json);
  phi.lm_head_bias = false;
  const bool described = json.contains("vision_config");
  const std::string tower_name = json.string("mm_vision_tower", "");
  if (!described && tower_name.find("SigLIP") == std::string::npos &&
      tower_name.find("siglip-so400m-patch14-384") == std::string::npos) {
    host::fail("{}: mm_vision_tower '{}' is not supported: use a SigLIP tower", json.where(),
               host::printable(tower_name));
  }
  const JsonObject tower =
      described ? json.object("vision_config")
                : JsonObject(nlohmann::json::parse(kSo400m), json.where() + ": mm_vision_tower");
  ModelConfig config;
  config.vision = parse_vision(json, tower, kKeys, phi.hidden_size);
  config.text = phi;
  return config;
}

// A config.json's text may be as long as host::read_json takes it.
std::string read_text(const fs::path& path) {
  const host::MappedFile file(path);
  const auto bytes = file.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

OpenedModel open_directory(const fs::path& directory) {
  const fs::path path = directory / "config.json";
  ModelConfig config = ModelConfig::parse(JsonObject(host::read_json(path), path.string()));
  kernels::Checkpoint checkpoint = kernels::Checkpoint::open(directory);
  const auto has = [&](const std::string& prefix) {
    const auto found = checkpoint.tensors().lower_bound(prefix);
    return found != checkpoint.tensors().end() && found->first.starts_with(prefix);
  };
  if (has("model.mm_projector.")) {
    checkpoint.rename_prefix("model.mm_projector.", kConnector);
    checkpoint.rename_prefix("model.vision_tower.vision_tower.", "vision_tower._vision_tower.");
    checkpoint.rename_prefix("model.", std::string(kLanguageModel) + "model.");
    checkpoint.rename_prefix("lm_head.", std::string(kLanguageModel) + "lm_head.");
  }
  return {std::move(config), std::move(checkpoint), directory, directory, read_text(path)};
}

OpenedModel open_packed(const fs::path& path) {
  kernels::Checkpoint checkpoint = kernels::Checkpoint::open(path);
  if (checkpoint.packed() == nullptr) {
    host::fail(
        "{}: is a safetensors file but not a packed model, which holds everything: name the "
        "directory it belongs to",
        path.string());
  }
  const std::string where = path.string() + ": its config";
  std::string text = checkpoint.packed()->config;
  ModelConfig config = ModelConfig::parse(JsonObject(host::parse_json(text, where), where));
  return {std::move(config), std::move(checkpoint), path, {}, std::move(text)};
}

bool is_safetensors_file(const fs::path& path) {
  return kernels::looks_like_safetensors(host::MappedFile(path).bytes());
}

OpenedModel open_llama2c_file(const fs::path& path) {
  kernels::Llama2cFile file = kernels::open_llama2c(path);
  ModelConfig config;
  config.model_type = kLlama2c;
  config.text = llm::Llama2Config::from_llama2c(file.header);
  config.context = file.header.seq_len;
  return {std::move(config), std::move(file.checkpoint), path, path.parent_path() / "tokenizer.bin",
          ""};
}

// A file or folder of the bundle: beside the installed program, or in the source tree.
fs::path find_bundled(const fs::path& name) {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  const fs::path installed = program.parent_path() / OCELLI_ASSETS_FROM_BINARY / name;
  if (!error && fs::exists(installed, error)) return installed.lexically_normal();
  const fs::path source = fs::path(OCELLI_ASSETS_SOURCE) / name;
  if (fs::exists(source, error)) return source;
  return {};
}

}  // namespace

OpenedModel open_model(const fs::path& path) {
  const Stopwatch watch;
  std::error_code ignored;  // whatever is wrong will be said by who opens it
  OpenedModel model = fs::is_directory(path, ignored) ? open_directory(path)
                      : is_safetensors_file(path)     ? open_packed(path)
                                                      : open_llama2c_file(path);
  model.opening_ms = watch.elapsed_ms();
  return model;
}

std::unique_ptr<llm::Tokenizer> OpenedModel::load_tokenizer() const {
  if (!packed()) return llm::load_tokenizer(tokenizer);
  const kernels::PackedContents& contents = *checkpoint.packed();
  return llm::unpack_tokenizer(contents.tokenizer_kind, contents.tokenizer, path.string());
}

std::unique_ptr<llm::Tokenizer> load_vocabulary(const fs::path& path) {
  std::error_code ignored;  // whatever is wrong will be said by who reads it
  if (fs::is_regular_file(path, ignored) && fs::file_size(path, ignored) > 0 &&
      is_safetensors_file(path)) {
    return open_packed(path).load_tokenizer();
  }
  return llm::load_tokenizer(path);
}

int ModelConfig::vocab_size() const {
  return std::visit([](const auto& config) { return config.vocab_size; }, text);
}

ModelConfig ModelConfig::parse(const JsonObject& json) {
  const std::string type = json.string("model_type", "");
  ModelConfig config;
  if (type == "tinyllava") {
    config = parse_tinyllava(json);
  } else if (type == "tiny_llava_phi") {
    config = parse_older_tinyllava(json);
  } else if (type == "phi") {
    config.text = llm::Phi2Config::parse(json);
  } else if (type == "llama") {
    config.text = llm::Llama2Config::parse(json);
  } else {
    host::fail("{}: model_type '{}' is not supported: use tinyllava, tiny_llava_phi, phi or llama",
               json.where(), host::printable(type));
  }
  config.model_type = type;
  config.note = json.string("ocelli_note", "");
  if (config.vision) {
    config.text_prefix = kLanguageModel;
    // TinyLLaVA may go past the positions Phi was trained on: rotary embeddings simply run on.
    config.context = json.integer("tokenizer_model_max_length", 2048, 1, 1 << 20);
  } else {
    config.context = std::visit([](const auto& decoder) { return decoder.max_position_embeddings; },
                                config.text);
  }
  return config;
}

ModelWeights read_weights(kernels::TensorReader& reader, const ModelConfig& config) {
  ModelWeights weights;
  if (const auto& vision = config.vision) {
    weights.siglip = vision::SiglipWeights::read(reader, vision->tower_prefix, vision->siglip);
    weights.connector =
        connector::MlpWeights::read(reader, vision->connector_prefix, vision->connector);
  }
  if (const auto* phi = std::get_if<llm::Phi2Config>(&config.text)) {
    weights.text = llm::Phi2Weights::read(reader, config.text_prefix, *phi);
  } else {
    weights.text = llm::Llama2Weights::read(reader, std::get<llm::Llama2Config>(config.text));
  }
  return weights;
}

std::unique_ptr<llm::Decoder> make_decoder(kernels::Ops& ops, const ModelConfig& config,
                                           const ModelWeights& weights,
                                           const llm::DecoderLimits& limits) {
  if (const auto* phi = std::get_if<llm::Phi2Config>(&config.text)) {
    return std::make_unique<llm::Phi2>(ops, *phi, std::get<llm::Phi2Weights>(weights.text), limits);
  }
  return std::make_unique<llm::Llama2>(ops, std::get<llm::Llama2Config>(config.text),
                                       std::get<llm::Llama2Weights>(weights.text), limits);
}

fs::path find_model(const std::string& argument, BundledModel bundled) {
  const bool stories = bundled == BundledModel::kStories;
  const char* variable = stories ? "OCELLI_STORY_MODEL" : "OCELLI_MODEL";
  const char* value = std::getenv(variable);
  const std::string chosen = !argument.empty() ? argument : value ? value : "";
  if (!chosen.empty()) {
    std::error_code ignored;  // whatever keeps us from looking, there is no model to be read
    if (fs::exists(chosen, ignored)) return chosen;
    host::fail(
        "{}: there is no such model (wanted: a directory with config.json and *.safetensors, a "
        "packed model or a file of llama2.c)",
        host::printable(chosen, 200));
  }
  const fs::path found = find_bundled(stories ? "stories/stories.bin" : "demo");
  if (found.empty()) host::fail("no model: give one with -m or in {}", variable);
  return found;
}

}  // namespace ocelli::app
