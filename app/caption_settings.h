// All that decides what a caption says, and the hash that stands for it in the journal.
#pragma once

#include <filesystem>
#include <string>

#include "app/caption_gates.h"
#include "app/conversation.h"
#include "app/model.h"
#include "app/options.h"
#include "host/sha256.h"
#include "vision/image.h"

namespace ocelli::app {

struct CaptionSettings {
  std::string prompt;
  AnswerOptions answer;  // with max_tokens
  CaptionGates gates;
  vision::DecodeOptions decode;
  std::string model;  // model_identity()
};

// The name in `path` and the beginning of a hash of the model's configuration, vocabulary and
// weights: "demo@0123456789ab". The folder where it stands is no part of it. Reads every weight,
// once, except of a packed model, whose file has their checksums. `threads` may be 0.
std::string model_identity(const std::filesystem::path& path, const OpenedModel& model,
                           int threads);

// 16 hex digits: of the model, the prompt and every setting that changes captions. How they are
// computed (threads, batch, instruction set) is no part of it.
std::string settings_hash(const CaptionSettings& settings, const ModelOptions& options);

// How picture `digest` is to be answered; attempt 0 is as the settings say, 1 is for a caption that
// was not good: with a repetition penalty of at least 1.15 and with chance, at a temperature of 0.5
// where it was less. Chance depends on the picture and the seed alone.
AnswerOptions answer_options(const CaptionSettings& settings, const host::Sha256Digest& digest,
                             int attempt);

}  // namespace ocelli::app
