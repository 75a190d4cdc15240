#include "app/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <map>
#include <utility>

#include "app/memory.h"
#include "app/model_cache.h"
#include "app/terminal.h"
#include "host/error.h"

namespace ocelli::app {
namespace {

constexpr int kDefaultTopK = 50;

const std::map<std::string, kernels::DType>& kv_caches() {
  static const std::map<std::string, kernels::DType> names = {
      {"f32", kernels::DType::kF32}, {"f16", kernels::DType::kF16}, {"int8", kernels::DType::kI8}};
  return names;
}

}  // namespace

void KvCacheOption::add_to(CLI::App& command) {
  command
      .add_option_function<std::string>(
          "--kv-cache", [this](const std::string& name) { chosen = kv_caches().at(name); },
          "Precision of keys and values (default: f16)")
      ->check(CLI::IsMember({"f32", "f16", "int8"}));
}

std::string KvCacheOption::name() const {
  const auto found = std::ranges::find_if(
      kv_caches(), [this](const auto& entry) { return entry.second == get(); });
  return found->first;
}

void ModelOptions::add_to(CLI::App& command) {
  command.add_option(
      "-m,--model", model,
      bundled == BundledModel::kDemo
          ? "Model: file or directory (default: $OCELLI_MODEL, else the bundled demo)"
          : "Model: file or directory (default: $OCELLI_STORY_MODEL, else the bundled one)");
  command.add_option("--backend", pipeline.backend.name, "Machine to compute on")
      ->check(CLI::IsMember(kernels::backend_names()))
      ->capture_default_str();
  command.add_option("--threads", pipeline.backend.threads, "Threads (default: every core)")
      ->check(CLI::Range(1, 1024));
  command
      .add_option("--weights", weights,
                  "file: as the model's files have them; int8, int4, bf16: packed on first use")
      ->check(CLI::IsMember({"file", "int8", "int4", "bf16"}))
      ->capture_default_str();
  command.add_flag(
      "--no-cache", no_cache,
      "With --weights int8, int4 or bf16: pack into memory, not into $XDG_CACHE_HOME/ocelli");
  kv.add_to(command);
  command.add_flag("--check", pipeline.check,
                   "Compare every operation with the reference backend (slow)");
  command.add_option("--trace", trace, "Write a trace of every operation, for ui.perfetto.dev");
  command.add_flag("-q,--quiet", quiet, "Print results and errors only");
}

void ModelOptions::add_system_to(CLI::App& command) {
  command.add_option("--system", pipeline.system, "System prompt");
}

void ModelOptions::add_tokenizer_to(CLI::App& command) {
  command.add_option("--tokenizer", pipeline.tokenizer,
                     "Vocabulary: a tokenizer.bin, .model or .json (default: the model's own)");
}

void ModelOptions::add_row_cache_to(CLI::App& command) {
  CLI::Option* cache = command.add_option(
      "--cache", row_cache,
      "Keep what the vision tower made of pictures in this folder: none is encoded twice");
  command
      .add_option("--cache-size", row_cache_bytes,
                  "What the folder may take; what was not used for longest goes (default: 10GB)")
      ->needs(cache)
      ->transform(CLI::AsSizeValue(true))
      ->check(CLI::PositiveNumber);
  cache->excludes(command.get_option("--check"));
}

std::filesystem::path ModelOptions::prepare() {
  const char* isa = std::getenv("OCELLI_ISA");
  if (isa && pipeline.backend.isa.empty()) pipeline.backend.isa = isa;
  pipeline.trace = !trace.empty();
  if (!row_cache.empty()) pipeline.row_cache = {row_cache, row_cache_bytes, quiet};
  // Who computes as llama2.c does wants nothing rounded that it does not round.
  if (pipeline.backend.isa == "llama2c" && !kv.chosen) kv.chosen = kernels::DType::kF32;
  pipeline.kv_dtype = kv.get();
  const std::filesystem::path path = find_model(model, bundled);
  return weights == "file" ? path : choose_weights(path);
}

Pipeline ModelOptions::open(int sequences) {
  const std::filesystem::path path = prepare();
  pipeline.sequences = sequences;
  OpenedModel opened = open_model(path);
  const MemoryForecast forecast = forecast_memory(opened, pipeline);
  const AvailableMemory available = available_memory();
  require_memory(forecast, available);
  const std::string warning = memory_note(forecast, available);
  if (!quiet && !warning.empty()) note(warning);
  return load(std::move(opened), sequences);
}

Pipeline ModelOptions::load(OpenedModel opened, int sequences) {
  if (bundled == BundledModel::kDemo && opened.config.model_type == kLlama2c) {
    throw UsageError("a model of llama2.c answers no questions: it tells stories (ocelli story)");
  }
  pipeline.sequences = sequences;
  Pipeline loaded(std::move(opened), pipeline);
  if (!quiet && !loaded.config().note.empty()) note(host::printable(loaded.config().note, 400));
  return loaded;
}

std::filesystem::path ModelOptions::choose_weights(const std::filesystem::path& path) {
  pipeline.pack.emplace();
  if (weights == "int4") pipeline.pack->factor_group = kUsualFactorGroup;
  if (weights == "bf16") pipeline.pack->head = HeadFormat::kBf16;
  pipeline.pack->bf16 = weights == "bf16";
  pipeline.pack->tokenizer = pipeline.tokenizer;
  if (no_cache || open_model(path).packed()) return path;
  return cached_model(path, {*pipeline.pack, pipeline.backend.threads, quiet}).value_or(path);
}

void ModelOptions::finish(const Pipeline& opened) const {
  if (!trace.empty()) opened.save_trace(trace);
  if (!quiet && opened.row_cache()) note(opened.row_cache()->summary());
}

void InputOptions::add_to(CLI::App& command) {
  add_decode_to(command);
  command.add_option("--batch", batch, "Questions of a file that are answered at once")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
}

void InputOptions::add_decode_to(CLI::App& command) {
  command.add_flag_callback(
      "--no-exif", [this] { decode.honour_exif = false; },
      "Do not turn pictures as their EXIF says");
}

void SamplingOptions::add_to(CLI::App& command) {
  llm::SamplerOptions& sampler = answer.sampler;
  command
      .add_option("--max-tokens", max_tokens,
                  "Longest answer (default: 512, or what the context leaves)")
      ->check(CLI::Range(1, 1 << 20));
  command
      .add_option("--temperature", sampler.temperature,
                  "0: always the likeliest token; higher: more surprising")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      .add_option("--top-p", sampler.top_p,
                  "Draw only from the likeliest tokens that make up this probability")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command
      .add_option("--top-k", sampler.top_k,
                  "Draw only from the k likeliest tokens; 0: all (default: 50)")
      ->check(CLI::Range(0, 1 << 24))
      ->default_val(kDefaultTopK);
  command.add_option("--repetition-penalty", sampler.repetition_penalty, "Over 1: repeat less")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--seed", sampler.seed, "The same seed draws the same answer")
      ->capture_default_str();
  command.add_option("--stop", answer.stop_strings, "End the answer before this text (repeatable)")
      ->allow_extra_args(false);
}

void require_sound(const llm::SamplerOptions& options) {
  try {
    const llm::Sampler sampler(options, 1);
  } catch (const host::Error& error) {
    throw UsageError(error.what());
  }
}

AnswerOptions SamplingOptions::get() const {
  AnswerOptions options = answer;
  if (max_tokens > 0) options.max_tokens = max_tokens;
  require_sound(options.sampler);
  try {
    const llm::StopMatcher stops(options.stop_strings);
  } catch (const host::Error& error) {
    throw UsageError(error.what());
  }
  return options;
}

}  // namespace ocelli::app
