// A model on disk: which of the supported layouts a directory holds, its configuration, its
// tensors.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "connector/mlp.h"
#include "host/json.h"
#include "kernels/checkpoint.h"
#include "llm/llama2.h"
#include "llm/phi2.h"
#include "llm/tokenizer.h"
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

// ModelConfig::model_type of a llama2.c file.
inline constexpr const char* kLlama2c = "llama2.c";

// The decoders there are, by their configurations.
using TextConfig = std::variant<llm::Phi2Config, llm::Llama2Config>;

struct ModelConfig {
  std::string model_type;  // as config.json says; "llama2.c" for one of its files
  std::string note;        // what the model knows, where its maker says so ("ocelli_note")
  std::optional<VisionConfig> vision;
  TextConfig text;
  std::string text_prefix;
  int context = 2048;  // positions a conversation may take

  // Tokens that the decoder has rows for.
  int vocab_size() const;

  // From a config.json: TinyLLaVA ("tinyllava"), its older form ("tiny_llava_phi"), Phi ("phi") or
  // Llama ("llama"). Throws host::Error for anything else, by name.
  static ModelConfig parse(const host::JsonObject& json);
};

// The weights of a model, still in the checkpoint's memory.
struct ModelWeights {
  std::optional<vision::SiglipWeights> siglip;
  std::optional<connector::MlpWeights> connector;
  std::variant<llm::Phi2Weights, llm::Llama2Weights> text;
};

// A model on disk with nothing but its headers read.
struct OpenedModel {
  ModelConfig config;
  kernels::Checkpoint checkpoint;
  std::filesystem::path path;
  std::filesystem::path tokenizer;  // what llm::load_tokenizer reads; empty: it is in the file
  std::string config_text;          // of config.json; empty for a file of llama2.c
  double opening_ms = 0;            // that this took

  bool packed() const { return checkpoint.packed() != nullptr && tokenizer.empty(); }
  // The model's own vocabulary. Throws host::Error as llm::load_tokenizer does.
  std::unique_ptr<llm::Tokenizer> load_tokenizer() const;
};

// Opens a directory with config.json, a vocabulary and *.safetensors (older LLaVA names become
// today's), a file of llama2.c with tokenizer.bin beside it, or a packed model. Throws host::Error
// naming what is missing or wrong.
OpenedModel open_model(const std::filesystem::path& path);

// A vocabulary by itself: of a packed model, or what llm::load_tokenizer reads.
std::unique_ptr<llm::Tokenizer> load_vocabulary(const std::filesystem::path& path);

// Finds every tensor that the model needs; the caller's reader.finish() throws for all that are
// missing or misshapen.
ModelWeights read_weights(kernels::TensorReader& reader, const ModelConfig& config);

// The model's decoder, with its weights placed by `ops`.
std::unique_ptr<llm::Decoder> make_decoder(kernels::Ops& ops, const ModelConfig& config,
                                           const ModelWeights& weights,
                                           const llm::DecoderLimits& limits);

// Which of the bundled models is meant where none is named.
enum class BundledModel { kDemo, kStories };

// The model to use: `argument`, else $OCELLI_MODEL (for stories $OCELLI_STORY_MODEL), else the
// bundled one. Throws host::Error when that does not exist.
std::filesystem::path find_model(const std::string& argument,
                                 BundledModel bundled = BundledModel::kDemo);

}  // namespace ocelli::app
