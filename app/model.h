// A model on disk: which of the supported layouts a directory holds, its configuration, its
// tensors.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "connector/mlp.h"
#include "host/json.h"
#include "kernels/checkpoint.h"
#include "llm/phi2.h"
#include "vision/siglip.h"

namespace ocelli::app {

// How a picture becomes a square: stretched, or padded with the mean colour first.
enum class AspectRatio { kSquare, kPad };

// What only a model with eyes has.
struct VisionConfig {
  vision::SiglipConfig siglip;
  connector::MlpConfig connector;
  AspectRatio aspect = AspectRatio::kSquare;
  int first_row = 0;  // of the tower's output that reaches the connector: 1 under "patch"
  std::string tower_prefix;
  std::string connector_prefix;

  // Rows that one picture takes in the context.
  int image_rows() const { return siglip.patches() - first_row; }
};

struct ModelConfig {
  std::string model_type;  // as config.json says
  std::string note;        // what the model knows, where its maker says so ("ocelli_note")
  std::optional<VisionConfig> vision;
  llm::Phi2Config text;
  std::string text_prefix;
  int context = 2048;  // positions a conversation may take

  // From a config.json: TinyLLaVA ("tinyllava"), its older form ("tiny_llava_phi"), or Phi ("phi").
  // Throws host::Error for anything else, by name.
  static ModelConfig parse(const host::JsonObject& json);
  // parse() of `directory`/config.json.
  static ModelConfig read(const std::filesystem::path& directory);
};

// The weights of a model, still in the checkpoint's memory.
struct ModelWeights {
  std::optional<vision::SiglipWeights> siglip;
  std::optional<connector::MlpWeights> connector;
  llm::Phi2Weights text;
};

// Opens the checkpoint in `directory`; where it has the older LLaVA names, they become today's.
kernels::Checkpoint open_checkpoint(const std::filesystem::path& directory);

// Finds every tensor that the model needs; the caller's reader.finish() throws for all that are
// missing or misshapen.
ModelWeights read_weights(kernels::TensorReader& reader, const ModelConfig& config);

// The model to use: `argument`, else $OCELLI_MODEL, else the bundled demo. Throws host::Error when
// that is no directory.
std::filesystem::path find_model(const std::string& argument);

}  // namespace ocelli::app
