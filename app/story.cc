// ocelli story: goes on with a text, or tells one from nothing.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <utility>

#include "app/commands.h"
#include "app/json_output.h"
#include "app/options.h"
#include "app/stopwatch.h"
#include "app/story_teller.h"
#include "app/terminal.h"
#include "host/error.h"

namespace ocelli::app {
namespace {

using nlohmann::json;

constexpr int kDefaultLength = 256;  // as llama2.c
// So many stories are told together; what is asked for beyond waits for a place.
constexpr int kTogether = 16;
// Between two stories, as training texts have it and `perplexity` reads it.
constexpr const char* kSeparator = "<|endoftext|>\n";

struct StoryCommand {
  ModelOptions model;
  StoryOptions story;
  std::string prompt;
  std::string sampler = "ocelli";
  std::optional<uint64_t> seed;
  int count = 1;
  bool exact = false;
  bool as_json = false;
};

// The stories that were asked for, shown in their order: the first that is not finished is shown as
// it grows.
class Telling {
 public:
  Telling(const StoryCommand& command, Pipeline& pipeline, std::vector<int32_t> prompt)
      : command_(command), pipeline_(pipeline), prompt_(std::move(prompt)) {
    tellers_.resize(command.count);
    at_place_.resize(pipeline.sequences());
  }

  // Steps until all are told. False when Ctrl-C came first.
  bool run() {
    while (shown_ < tellers_.size()) {
      if (interrupted()) {
        for (const auto& teller : tellers_) {
          if (teller && !teller->finished()) teller->interrupt();
        }
        show();
        if (!at_line_start_) print("\n");
        return false;
      }
      begin_more();
      for (const llm::Output& output : pipeline_.engine().step()) take(output);
      if (tokens_ == first_tokens_) watch_ = {};  // as run.c: the prompt is not counted
      show();
    }
    return true;
  }

  // Tokens a second after each story's first.
  double rate() const {
    const double seconds = elapsed_ms_ / 1e3;
    return seconds > 0 ? static_cast<double>(tokens_ - first_tokens_) / seconds : 0;
  }

 private:
  uint64_t seed_of(size_t index) const { return *command_.seed + index; }

  void begin_more() {
    while (begun_ < tellers_.size() && open_ < pipeline_.sequences()) {
      StoryOptions options = command_.story;
      options.sampler.seed = seed_of(begun_);
      tellers_[begun_] = std::make_unique<StoryTeller>(pipeline_, prompt_, options);
      at_place_[tellers_[begun_]->sequence()] = tellers_[begun_].get();
      ++begun_;
      ++open_;
    }
  }

  void take(const llm::Output& output) {
    StoryTeller& teller = *at_place_[output.sequence];
    teller.accept(output);
    ++tokens_;
    if (teller.story().tokens == 1) ++first_tokens_;
    elapsed_ms_ = watch_.elapsed_ms();
    if (teller.finished()) --open_;
  }

  void show() {
    for (; shown_ < begun_; ++shown_) {
      const StoryTeller& teller = *tellers_[shown_];
      if (!command_.as_json) show_text(teller.story().text);
      if (!teller.finished()) return;
      finish(teller.story());
      tellers_[shown_].reset();
    }
  }

  void show_text(const std::string& text) {
    if (text.size() == printed_) return;
    separate();
    print(std::string_view(text).substr(printed_));
    printed_ = text.size();
    at_line_start_ = false;
  }

  // Before the first text of every story but the first.
  void separate() const {
    if (printed_ == 0 && shown_ > 0) print(kSeparator);
  }

  void finish(const Story& story) {
    if (command_.as_json) {
      print(
          json_line({{"text", story.text},
                     {"finish", name(story.finish)},
                     {"seed", seed_of(shown_)},
                     {"tokens", {{"prompt", story.prompt_tokens}, {"generated", story.tokens}}}}));
    } else {
      separate();  // a story may have no text
      print("\n");
    }
    printed_ = 0;
    at_line_start_ = true;
  }

  const StoryCommand& command_;
  Pipeline& pipeline_;
  std::vector<int32_t> prompt_;
  std::vector<std::unique_ptr<StoryTeller>> tellers_;
  std::vector<StoryTeller*> at_place_;  // in the engine, the one that is being told there
  size_t begun_ = 0;                    // tellers that exist
  size_t shown_ = 0;                    // stories shown to their end
  size_t printed_ = 0;                  // bytes shown of the next one
  bool at_line_start_ = true;
  int open_ = 0;
  int64_t tokens_ = 0;
  int64_t first_tokens_ = 0;
  Stopwatch watch_;
  double elapsed_ms_ = 0;
};

void check(StoryCommand& command) {
  llm::SamplerOptions& sampler = command.story.sampler;
  sampler.as_llama2c = command.sampler == "llama2c";
  if (sampler.as_llama2c && sampler.top_k != 0) {
    throw UsageError("--sampler llama2c knows no --top-k");
  }
  require_sound(sampler);
  if (!command.seed) command.seed = std::random_device{}();
  if (!command.exact) return;
  if (command.model.pipeline.backend.name != "cpu" ||
      command.model.kv.chosen.value_or(kernels::DType::kF32) != kernels::DType::kF32) {
    throw UsageError("--exact computes as llama2.c does: on the cpu, with --kv-cache f32");
  }
  if (command.model.weights != "file") {
    throw UsageError("--exact computes with the weights as the file has them, not with --weights");
  }
  command.model.pipeline.backend.isa = "llama2c";
  command.story.as_llama2c = true;
}

int choose_length(const StoryCommand& command, int context) {
  if (command.story.length > context) {
    host::fail("-n {}: the model's context is {} tokens", command.story.length, context);
  }
  return command.story.length > 0 ? command.story.length : std::min(kDefaultLength, context);
}

// The line end that `echo` adds is no part of the beginning.
std::string prompt_from_stdin() {
  std::string text = read_stdin();
  if (text.ends_with('\n')) text.pop_back();
  if (text.ends_with('\r')) text.pop_back();
  return text;
}

void run_story(StoryCommand& command) {
  check(command);
  const std::string prompt = command.prompt == "-" ? prompt_from_stdin() : command.prompt;
  Pipeline pipeline = command.model.open(std::min(command.count, kTogether));
  if (command.exact && pipeline.config().model_type != kLlama2c) {
    host::fail("--exact is for the files of llama2.c; this is a {} model",
               pipeline.config().model_type);
  }
  command.story.length = choose_length(command, pipeline.config().context);
  Telling telling(command, pipeline,
                  story_prompt(pipeline.tokenizer(), prompt, command.story.length));
  catch_interrupts();
  const bool whole = telling.run();
  if (!command.model.quiet) {
    note(fmt::format("achieved tok/s: {:.6f}", telling.rate()));
    if (command.story.sampler.temperature > 0) note(fmt::format("seed: {}", *command.seed));
  }
  command.model.finish(pipeline);
  if (!whole) throw Exit{kInterruptedExit};
}

void add_options(CLI::App& command, StoryCommand& options) {
  llm::SamplerOptions& sampler = options.story.sampler;
  sampler.temperature = 1;
  sampler.top_p = 0.9F;
  command.add_option("prompt", options.prompt, "How it begins; \"-\": standard input");
  command
      .add_option("-n,--tokens", options.story.length,
                  "Length in tokens, the prompt's included (default: 256, or the context)")
      ->check(CLI::Range(1, 1 << 20));
  command
      .add_option("-t,--temperature", sampler.temperature,
                  "0: always the likeliest token; higher: more surprising")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      .add_option("-p,--top-p", sampler.top_p,
                  "Draw only from the likeliest tokens that make up this probability")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command.add_option("--top-k", sampler.top_k, "Draw only from the k likeliest tokens; 0: all")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  command.add_option("-s,--seed", options.seed,
                     "The same seed tells the same story (default: another one each time)");
  command
      .add_option("--sampler", options.sampler,
                  "\"llama2c\": with a seed, draw as llama2.c's run.c does")
      ->check(CLI::IsMember({"ocelli", "llama2c"}))
      ->capture_default_str();
  command
      .add_option("--count", options.count,
                  "So many stories at once, with the seeds SEED, SEED + 1, …")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  command.add_flag("--exact", options.exact,
                   "Compute in llama2.c's own order of additions and print what it prints (slow)");
  command.add_flag("--json", options.as_json, "Print one JSON object a story");
}

}  // namespace

void add_story(CLI::App& program) {
  auto options = std::make_shared<StoryCommand>();
  CLI::App* command = program.add_subcommand("story", "Tell a story, or go on with a text");
  options->model.bundled = BundledModel::kStories;
  add_options(*command, *options);
  options->model.add_to(*command);
  options->model.add_tokenizer_to(*command);
  command->footer(
      "Models: files of llama2.c (versions 0, 1 and 2, tokenizer.bin beside them), Hugging Face\n"
      "directories of Llama and Phi-2, and the text side of TinyLLaVA.\n"
      "Examples:\n"
      "  ocelli story \"Once upon a time\"\n"
      "  ocelli story --seed 7 --count 3 > three.txt\n"
      "  ocelli story -m stories15M.bin -t 0 -n 256 \"One day\"\n"
      "  ocelli story -m phi-2/ -t 0 \"def bubble_sort\"");
  command->callback([options] { run_story(*options); });
}

}  // namespace ocelli::app
