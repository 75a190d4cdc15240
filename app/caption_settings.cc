#include "app/caption_settings.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <vector>

#include "app/weights_identity.h"
#include "host/error.h"

namespace ocelli::app {
namespace {

namespace fs = std::filesystem;

constexpr size_t kModelDigits = 12;
constexpr size_t kSettingsDigits = 16;
constexpr float kRetryPenalty = 1.15F;
constexpr float kRetryTemperature = 0.5F;

std::string hash_of(const nlohmann::json& object, size_t digits) {
  const std::string text = object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return host::hex(host::sha256(text)).substr(0, digits);
}

// What the vocabulary is made of, by content.
nlohmann::json tokenizer_identity(const fs::path& path) {
  nlohmann::json files = nlohmann::json::object();
  std::vector<fs::path> candidates = {path};
  if (fs::is_directory(path)) {
    candidates.clear();
    for (const char* name :
         {"vocab.json", "merges.txt", "added_tokens.json", "tokenizer.json", "tokenizer.model",
          "tokenizer.bin", "special_tokens_map.json", "tokenizer_config.json"}) {
      candidates.push_back(path / name);
    }
  }
  for (const fs::path& file : candidates) {
    std::error_code missing;
    if (!fs::is_regular_file(file, missing) || fs::file_size(file, missing) == 0) continue;
    files[file.filename().string()] = host::hex(host::sha256(host::MappedFile(file).bytes()));
  }
  return files;
}

}  // namespace

std::string model_identity(const fs::path& path, const OpenedModel& model, int threads) {
  const nlohmann::json identity = {{"config", model.config_text},
                                   {"tokenizer", tokenizer_identity(model.tokenizer)},
                                   {"weights", weights_identity(model, "", threads)}};
  const fs::path named = fs::canonical(path);
  const std::string name = fs::is_directory(named) ? named.filename() : named.stem();
  return fmt::format("{}@{}", name, hash_of(identity, kModelDigits));
}

std::string settings_hash(const CaptionSettings& settings, const ModelOptions& options) {
  const AnswerOptions& answer = settings.answer;
  const llm::SamplerOptions& sampler = answer.sampler;
  const std::optional<PackSettings>& pack = options.pipeline.pack;
  const nlohmann::json object = {{"version", 1},
                                 {"model", settings.model},
                                 {"backend", options.pipeline.backend.name},
                                 {"kv", options.kv.name()},
                                 {"weights", pack ? weights_name(*pack) : "file"},
                                 {"system", options.pipeline.system},
                                 {"prompt", settings.prompt},
                                 {"begin_with", answer.begin_with},
                                 {"max_tokens", answer.max_tokens.value_or(0)},
                                 {"stop", answer.stop_strings},
                                 {"temperature", sampler.temperature},
                                 {"top_k", sampler.top_k},
                                 {"top_p", sampler.top_p},
                                 {"repetition_penalty", sampler.repetition_penalty},
                                 {"seed", sampler.seed},
                                 {"exif", settings.decode.honour_exif},
                                 {"min_confidence", settings.gates.min_confidence},
                                 {"forbidden", settings.gates.forbidden.words()}};
  return hash_of(object, kSettingsDigits);
}

AnswerOptions answer_options(const CaptionSettings& settings, const host::Sha256Digest& digest,
                             int attempt) {
  AnswerOptions options = settings.answer;
  options.confidence = true;
  llm::SamplerOptions& sampler = options.sampler;
  uint64_t of_picture = 0;
  std::memcpy(&of_picture, digest.data(), sizeof of_picture);
  sampler.seed = (sampler.seed + static_cast<uint64_t>(attempt)) ^ of_picture;
  if (attempt > 0) {
    sampler.repetition_penalty = std::max(sampler.repetition_penalty, kRetryPenalty);
    sampler.temperature = std::max(sampler.temperature, kRetryTemperature);
  }
  return options;
}

}  // namespace ocelli::app
