// ocelli perplexity: how well a model foretells a text.
#include "llm/perplexity.h"

#include <CLI/CLI.hpp>
#include <algorithm>
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
  std::string against;
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

// How far logits are from those of another model at the same places.
class LogitError {
 public:
  // The other model's, in the order in which compare() is called afterwards.
  void expect(std::span<const float> logits) {
    expected_.insert(expected_.end(), logits.begin(), logits.end());
  }
  void compare(std::span<const float> logits) {
    const auto expected = std::span(expected_).subspan(next_, logits.size());
    next_ += logits.size();
    for (size_t i = 0; i < logits.size(); ++i) {
      const double off = static_cast<double>(logits[i]) - expected[i];
      off_ += off * off;
      all_ += static_cast<double>(expected[i]) * expected[i];
    }
    const auto best = [](std::span<const float> row) {
      return std::ranges::max_element(row) - row.begin();
    };
    same_ += best(logits) == best(expected) ? 1 : 0;
    ++rows_;
    if (next_ < expected_.size()) return;
    expected_.clear();
    next_ = 0;
  }

  // ‖logits − expected‖ / ‖expected‖ over all of them.
  double relative() const { return std::sqrt(off_ / all_); }
  // Where the likeliest token is the same.
  double agreement() const { return static_cast<double>(same_) / static_cast<double>(rows_); }

 private:
  std::vector<float> expected_;
  size_t next_ = 0;
  double off_ = 0;
  double all_ = 0;
  int64_t same_ = 0;
  int64_t rows_ = 0;
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

// Another model that foretells the same texts.
class Comparison {
 public:
  Comparison(const Pipeline& measured, const PerplexityOptions& options) {
    ModelOptions other = options.model;
    other.model = options.against;
    other.weights = "file";
    other.pipeline.pack.reset();
    other.pipeline.trace = false;
    other.pipeline.check = false;
    pipeline_ = std::make_unique<Pipeline>(other.open(1));
    if (pipeline_->config().vocab_size() != measured.config().vocab_size()) {
      host::fail("--against: {} has {} tokens, the model {}", host::printable(options.against, 200),
                 pipeline_->config().vocab_size(), measured.config().vocab_size());
    }
    const int context = choose_context(options.context, measured.config().context);
    meter_ = std::make_unique<llm::PerplexityMeter>(
        pipeline_->ops(), pipeline_->decoder(),
        choose_context(context, pipeline_->config().context));
    meter_->observe_logits([this](std::span<const float> logits) { error_.expect(logits); });
  }

  // From now on what `meter` computes is compared with what expect() was called for.
  void watch(llm::PerplexityMeter& meter) {
    meter.observe_logits([this](std::span<const float> logits) { error_.compare(logits); });
  }
  void expect(std::span<const int32_t> ids) {
    meter_->score(ids, [](int64_t) {});
  }
  const LogitError& error() const { return error_; }

 private:
  std::unique_ptr<Pipeline> pipeline_;
  std::unique_ptr<llm::PerplexityMeter> meter_;
  LogitError error_;
};

Totals measure(Pipeline& pipeline, const std::vector<std::string_view>& documents,
               Comparison* comparison, const PerplexityOptions& options) {
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
  if (comparison) comparison->watch(meter);
  for (const auto& ids : encoded) {
    if (comparison) comparison->expect(ids);
    totals.nats += meter.score(ids, [&](int64_t scored) {
      if (interrupted()) throw Exit{kInterruptedExit};
      progress.advance(done += scored);
    });
    if (!std::isfinite(totals.nats)) throw host::Error(pipeline.why_not_finite());
  }
  return totals;
}

void report(const Totals& totals, const LogitError* error, bool as_json) {
  nlohmann::json object = {{"perplexity", totals.perplexity()},
                           {"nll_per_byte", totals.nll_per_byte()},
                           {"tokens", totals.tokens},
                           {"bytes", totals.bytes}};
  std::string text =
      fmt::format("perplexity {:.4f}, {:.4f} nats per byte, {} tokens, {} bytes\n",
                  totals.perplexity(), totals.nll_per_byte(), totals.tokens, totals.bytes);
  if (error) {
    object["logit_error"] = error->relative();
    object["same_best"] = error->agreement();
    text +=
        fmt::format("logits off by {:.2f} % of theirs, the likeliest token the same at {:.2f} %\n",
                    100 * error->relative(), 100 * error->agreement());
  }
  print(as_json ? json_line(object) : text);
}

void run_perplexity(PerplexityOptions& options) {
  const std::string text = read_text(options.text);
  const std::vector<std::string_view> documents = split_documents(text);
  if (documents.empty()) host::fail("{}: there is no text in it", host::printable(options.text));
  options.model.pipeline.scored_rows = kScoredRows;
  Pipeline pipeline = options.model.open(1);
  catch_interrupts();
  std::unique_ptr<Comparison> comparison;
  if (!options.against.empty()) comparison = std::make_unique<Comparison>(pipeline, options);
  const Totals totals = measure(pipeline, documents, comparison.get(), options);
  options.model.finish(pipeline);
  report(totals, comparison ? &comparison->error() : nullptr, options.as_json);
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
  command->add_option("--against", options->against,
                      "Compare the logits with those of this model, its weights as they are");
  command->add_flag("--json", options->as_json,
                    "Print {\"perplexity\", \"nll_per_byte\", \"tokens\", \"bytes\"}, and with "
                    "--against \"logit_error\", \"same_best\"");
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
