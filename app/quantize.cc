// ocelli quantize: makes one packed file of a model.
#include <CLI/CLI.hpp>
#include <memory>
#include <system_error>

#include "app/commands.h"
#include "app/model_cache.h"
#include "app/terminal.h"
#include "host/error.h"

namespace ocelli::app {
namespace {

namespace fs = std::filesystem;

struct QuantizeOptions {
  std::string source;
  std::string target;
  std::string weights = "int8";
  std::string group;
  std::string head;
  std::string embedding;
  PackSettings settings;
  int threads = 0;
  bool force = false;
  bool quiet = false;
};

// Throws Error when writing to `target` would lose something.
void check_target(const OpenedModel& model, const QuantizeOptions& options) {
  const fs::path target = options.target;
  std::error_code ignored;
  for (const fs::path& file : model.checkpoint.files()) {
    if (fs::equivalent(file, target, ignored)) {
      host::fail("{}: is what the model is read from; name another file", target.string());
    }
  }
  if (fs::is_directory(target, ignored)) {
    host::fail("{}: is a directory; name the file to be written in it", target.string());
  }
  if (fs::exists(target, ignored) && !options.force) {
    host::fail("{}: exists already; --force replaces it", target.string());
  }
}

void choose_settings(QuantizeOptions& options) {
  PackSettings& settings = options.settings;
  const int group = options.group.empty() || options.group == "row" ? 0 : std::stoi(options.group);
  if (options.weights == "int4") {
    if (options.group == "row") {
      throw UsageError("--group row is for int8: int4's are 32, 64 or 128");
    }
    settings.factor_group = group > 0 ? group : kUsualFactorGroup;
  } else {
    settings.group = group;
  }
  settings.bf16 = options.weights == "bf16";
  if (settings.bf16 && !options.group.empty()) {
    throw UsageError("--group is for int8 and int4: bf16 has no scales to share");
  }
  if (settings.bf16 && (options.head == "int8" || options.head == "int4")) {
    throw UsageError("--head " + options.head +
                     " is for int8 and int4: under bf16 the last matrix is bf16 or f16");
  }
  settings.head = options.head == "f16"    ? HeadFormat::kF16
                  : options.head == "int4" ? HeadFormat::kInt4
                  : settings.bf16          ? HeadFormat::kBf16
                                           : HeadFormat::kInt8;
}

void choose_embedding(QuantizeOptions& options) {
  options.settings.embedding = options.embedding == "int8"  ? EmbeddingFormat::kInt8
                               : options.embedding == "f16" ? EmbeddingFormat::kF16
                                                            : EmbeddingFormat::kSource;
}

void run_quantize(QuantizeOptions& options) {
  choose_settings(options);
  choose_embedding(options);
  const OpenedModel model = open_model(find_model(options.source));
  check_target(model, options);
  const PackedSizes sizes =
      pack_into_file(model, options.settings, options.threads, options.target, options.quiet);
  if (options.quiet) return;
  print(fmt::format("{}: {:.1f} MB, from {:.1f} MB of weights\n", options.target,
                    static_cast<double>(sizes.packed) / 1e6,
                    static_cast<double>(sizes.source) / 1e6));
}

}  // namespace

void add_quantize(CLI::App& program) {
  auto options = std::make_shared<QuantizeOptions>();
  CLI::App* command =
      program.add_subcommand("quantize", "Make one packed file of a model, smaller and faster");
  command->add_option("source", options->source, "Model: a directory, or a file of llama2.c")
      ->required();
  command->add_option("target", options->target, "The file to write")->required();
  command
      ->add_option("--weights", options->weights,
                   "Format of the matrices; int4: of the decoder's, the others are int8")
      ->check(CLI::IsMember({"int8", "int4", "bf16"}))
      ->capture_default_str();
  command
      ->add_option("--group", options->group,
                   "int8: weights that share a scale, where it divides their row (default: row, "
                   "all of it); int4: that share a factor (default: 64)")
      ->check(CLI::IsMember({"row", "32", "64", "128"}));
  command
      ->add_option("--head", options->head,
                   "Format of the decoder's last matrix (default: int8, under bf16 that)")
      ->check(CLI::IsMember({"int8", "int4", "f16"}));
  command
      ->add_option("--embedding", options->embedding,
                   "Format of the decoder's embeddings (default: as they are; f16 and bf16 stay "
                   "under f16)")
      ->check(CLI::IsMember({"f16", "int8"}));
  command->add_option("--tokenizer", options->settings.tokenizer,
                      "Vocabulary: a tokenizer.bin, .model or .json (default: the model's own)");
  command->add_option("--threads", options->threads, "Threads (default: every core)")
      ->check(CLI::Range(1, 1024));
  command->add_flag("-f,--force", options->force, "Replace the file when it is there already");
  command->add_flag("-q,--quiet", options->quiet, "Print errors only");
  command->footer(
      "The file holds weights, configuration and vocabulary, and goes wherever a model does:\n"
      "  ocelli quantize ~/models/tinyllava tinyllava.ocelli\n"
      "  ocelli quantize --weights int4 ~/models/tinyllava tinyllava.int4.ocelli\n"
      "  ocelli ask -m tinyllava.ocelli photo.jpg \"What is this?\"");
  command->callback([options] { run_quantize(*options); });
}

}  // namespace ocelli::app
