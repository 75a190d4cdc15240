// Options that several commands share.
#pragma once

#include <CLI/App.hpp>
#include <optional>
#include <string>

#include "app/conversation.h"
#include "app/pipeline.h"

namespace ocelli::app {

// Precision of keys and values.
struct KvCacheOption {
  std::optional<kernels::DType> chosen;  // none: not given

  // Adds --kv-cache.
  void add_to(CLI::App& command);
  kernels::DType get() const { return chosen.value_or(PipelineOptions().kv_dtype); }
  // As the option has it: "f32", "f16" or "int8".
  std::string name() const;
};

struct ModelOptions {
  std::string model;
  PipelineOptions pipeline;
  std::string trace;
  KvCacheOption kv;
  std::string weights = "file";
  bool no_cache = false;
  std::string row_cache;  // folder; empty: none
  int64_t row_cache_bytes = RowCacheOptions().bytes;
  bool quiet = false;
  BundledModel bundled = BundledModel::kDemo;

  // Adds -m, --weights, --no-cache, --backend, --threads, --check, --trace, --kv-cache and --quiet
  // to `command`.
  void add_to(CLI::App& command);
  // Adds --system, for models that converse.
  void add_system_to(CLI::App& command);
  // Adds --tokenizer, for models whose vocabulary stands elsewhere.
  void add_tokenizer_to(CLI::App& command);

  // Adds --cache and --cache-size, for models that see.
  void add_row_cache_to(CLI::App& command);

  // Loads the model, for `sequences` answers at once; throws before that when the memory does not
  // suffice. A model with a note shows it on stderr.
  Pipeline open(int sequences);
  // The same for what open_model() has read from prepare()'s path, its memory having been seen to.
  Pipeline load(OpenedModel opened, int sequences);
  // Sets what of `pipeline` the other options decide, and returns what open() loads: under
  // --weights int8, int4 and bf16 the packed form, made now where there is none yet.
  std::filesystem::path prepare();
  // Writes the trace, when one was asked for, and says what the cache was good for.
  void finish(const Pipeline& pipeline) const;

 private:
  // What is loaded for the model at `path` under --weights int8, int4 or bf16: its packed form, in
  // a file or in memory.
  std::filesystem::path choose_weights(const std::filesystem::path& path);
};

// How pictures are read, and how many questions are in the engine at once.
struct InputOptions {
  vision::DecodeOptions decode;
  int batch = 8;

  // Adds --no-exif and --batch.
  void add_to(CLI::App& command);
  // Adds --no-exif.
  void add_decode_to(CLI::App& command);
};

// Throws UsageError when the options of a sampler make no sense.
void require_sound(const llm::SamplerOptions& options);

struct SamplingOptions {
  AnswerOptions answer;
  int max_tokens = 0;  // 0: not given

  // Adds --max-tokens, --temperature, --top-p, --top-k, --repetition-penalty, --seed and --stop.
  void add_to(CLI::App& command);
  // What was asked for. Throws UsageError when it makes no sense.
  AnswerOptions get() const;
};

}  // namespace ocelli::app
