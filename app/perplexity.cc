// ocelli perplexity: how well a model foretells a text.
#include "llm/perplexity.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/json_output.h"
#include "app/options.h"
#include "app/terminal.h"
#include "host/error.h"
#include "host/mapped_file.h"

namespace ocelli::app {
namespace {

constexpr std::string_view kSeparator = "<|endoftext|>";
// Rows whose logits are computed at once: they share one reading of the classifier.
constexpr int kScoredRows = 32;

struct PerplexityOptions {
  ModelOptions model;
  std::string text;
  int context = 0;
  bool as_json = false;
};

struct Totals {
  double nats = 0;
  int64_t tokens = 0;
  int64_t bytes = 0;

  double perplexity() const { return std::exp(nats / static_cast<double>(tokens)); }
  double nll_per_byte() const { return nats / static_cast<double>(bytes); }
};

std::string_view strip_line_ends(std::string_view text) {
  while (text.starts_with('\n') || text.starts_with('\r')) text.remove_prefix(1);
  while (text.ends_with('\n') || text.ends_with('\r')) text.remove_suffix(1);
  return text;
}

// The documents between lines that hold the separator and nothing else; empty ones do not count.
std::vector<std::string_view> split_documents(std::string_view text) {
  std::vector<std::string_view> documents;
  size_t begin = 0;
  const auto add = [&](size_t end) {
    const std::string_view document = strip_line_ends(text.substr(begin, end - begin));
    if (!document.empty()) documents.push_back(document);
  };
  for (size_t line = 0; line < text.size();) {
    const size_t end = std::min(text.find('\n', line), text.size());
    if (strip_line_ends(text.substr(line, end - line)) == kSeparator) {
      add(line);
      begin = end;
    }
    line = end + 1;
  }
  add(text.size());
  return documents;
}

std::string read_text(const std::string& path) {
  if (path == "-") return read_stdin();
  const host::MappedFile file(path);
  const auto bytes = file.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

int choose_context(int wanted, int most) {
  if (wanted > most) host::fail("--context {}: the model's context is {} tokens", wanted, most);
  if (most < 2) host::fail("a context of {} foretells nothing", most);
  return wanted > 0 ? wanted : most;
}

Totals measure(Pipeline& pipeline, const std::vector<std::string_view>& documents,
               const PerplexityOptions& options) {
  std::vector<std::vector<int32_t>> encoded;
  Totals totals;
  for (const std::string_view document : documents) {
    encoded.push_back(llm::text_from_beginning(pipeline.tokenizer(), document));
    totals.bytes += static_cast<int64_t>(document.size());
    totals.tokens += static_cast<int64_t>(encoded.back().size()) - 1;  // the first is not scored
  }

  llm::PerplexityMeter meter(pipeline.ops(), pipeline.decoder(),
                             choose_context(options.context, pipeline.config().context));
  Progress progress("tokens", totals.tokens, !options.model.quiet);
  int64_t done = 0;
  for (const auto& ids : encoded) {
    totals.nats += meter.score(ids, [&](int64_t scored) {
      if (interrupted()) throw Exit{kInterruptedExit};
      progress.advance(done += scored);
    });
    if (!std::isfinite(totals.nats)) throw host::Error(pipeline.why_not_finite());
  }
  return totals;
}

void run_perplexity(PerplexityOptions& options) {
  const std::string text = read_text(options.text);
  const std::vector<std::string_view> documents = split_documents(text);
  if (documents.empty()) host::fail("{}: there is no text in it", host::printable(options.text));
  options.model.pipeline.scored_rows = kScoredRows;
  Pipeline pipeline = options.model.open(1);
  catch_interrupts();
  const Totals totals = measure(pipeline, documents, options);
  options.model.finish(pipeline);
  if (options.as_json) {
    print(json_line({{"perplexity", totals.perplexity()},
                     {"nll_per_byte", totals.nll_per_byte()},
                     {"tokens", totals.tokens},
                     {"bytes", totals.bytes}}));
  } else {
    print(fmt::format("perplexity {:.4f}, {:.4f} nats per byte, {} tokens, {} bytes\n",
                      totals.perplexity(), totals.nll_per_byte(), totals.tokens, totals.bytes));
  }
}

}  // namespace

void add_perplexity(CLI::App& program) {
  auto options = std::make_shared<PerplexityOptions>();
  CLI::App* command =
      program.add_subcommand("perplexity", "Measure how well a model foretells a text");
  command
      ->add_option("text", options->text,
                   "The text, documents separated by lines <|endoftext|>; \"-\": stdin")
      ->required();
  command
      ->add_option("--context", options->context,
                   "Tokens of the sliding window (default: the model's context)")
      ->check(CLI::Range(2, 1 << 20));
  command->add_flag("--json", options->as_json,
                    "Print {\"perplexity\", \"nll_per_byte\", \"tokens\", \"bytes\"}");
  options->model.bundled = BundledModel::kStories;
  options->model.add_to(*command);
  options->model.add_tokenizer_to(*command);
  command->footer(
      "Every token but the one that begins a document is foretold once, from half a context or\n"
      "more where there is as much.\n"
      "Example:\n"
      "  ocelli perplexity -m stories15M.bin held-out.txt");
  command->callback([options] { run_perplexity(*options); });
}

}  // namespace ocelli::app
