#include "app/model.h"

#include <cstdlib>

#include "host/error.h"
#include "host/json.h"

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
  ModelConfig config;
  config.text = llm::Phi2Config::parse(text);
  config.vision = parse_vision(json, json.object("vision_config"), kKeys, config.text.hidden_size);
  return config;
}

ModelConfig parse_older_tinyllava(const JsonObject& json) {
  static constexpr Keys kKeys = {"mm_vision_select_layer", "mm_vision_select_feature",
                                 "mm_projector_type", "mlp2x_gelu"};
  ModelConfig config;
  config.text = llm::Phi2Config::parse(json);
  config.text.lm_head_bias = false;
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
  config.vision = parse_vision(json, tower, kKeys, config.text.hidden_size);
  return config;
}

}  // namespace

ModelConfig ModelConfig::read(const fs::path& directory) {
  const fs::path path = directory / "config.json";
  return parse(JsonObject(host::read_json(path), path.string()));
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
  } else {
    host::fail("{}: model_type '{}' is not supported: use tinyllava, tiny_llava_phi or phi",
               json.where(), host::printable(type));
  }
  config.model_type = type;
  config.note = json.string("ocelli_note", "");
  config.text_prefix = type == "phi" ? "" : kLanguageModel;
  // TinyLLaVA may go past the positions Phi was trained on: rotary embeddings simply run on.
  config.context = type == "phi" ? config.text.max_position_embeddings
                                 : json.integer("tokenizer_model_max_length", 2048, 1, 1 << 20);
  return config;
}

kernels::Checkpoint open_checkpoint(const fs::path& directory) {
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
  return checkpoint;
}

ModelWeights read_weights(kernels::TensorReader& reader, const ModelConfig& config) {
  ModelWeights weights;
  if (const auto& vision = config.vision) {
    weights.siglip = vision::SiglipWeights::read(reader, vision->tower_prefix, vision->siglip);
    weights.connector =
        connector::MlpWeights::read(reader, vision->connector_prefix, vision->connector);
  }
  weights.text = llm::Phi2Weights::read(reader, config.text_prefix, config.text);
  return weights;
}

fs::path find_model(const std::string& argument) {
  const char* variable = std::getenv("OCELLI_MODEL");
  const std::string chosen = !argument.empty() ? argument : variable ? variable : "";
  if (!chosen.empty()) {
    std::error_code ignored;  // whatever keeps us from looking, there is no model to be read
    if (fs::is_directory(chosen, ignored)) return chosen;
    host::fail("{}: is not a model directory (it should hold config.json and *.safetensors)",
               host::printable(chosen, 200));
  }
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  const fs::path installed = program.parent_path() / OCELLI_DEMO_FROM_BINARY;
  if (!error && fs::is_directory(installed, error)) return installed.lexically_normal();
  if (fs::is_directory(OCELLI_DEMO_SOURCE, error)) return OCELLI_DEMO_SOURCE;
  host::fail("no model: give one with -m DIRECTORY or in OCELLI_MODEL");
}

}  // namespace ocelli::app
