// ocelli bench: how fast a model runs here, as fractions of what the machine can do.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <optional>

#include "app/bench_images.h"
#include "app/bench_rows.h"
#include "app/bench_weights.h"
#include "app/commands.h"
#include "app/json_output.h"
#include "app/options.h"
#include "app/terminal.h"
#include "host/available_memory.h"
#include "host/error.h"
#include "kernels/backend.h"
#include "kernels/profiled_ops.h"

namespace ocelli::app {
namespace {

constexpr int kUsualContext = 800;
// A prompt: a picture, where the model sees, and a question of 42 tokens (770 rows for TinyLLaVA);
// else as many tokens as that.
constexpr int kQuestionRows = 42;
constexpr int kPromptRows = 770;
constexpr int64_t kMega = 1'000'000;

struct BenchOptions {
  PipelineOptions pipeline;
  KvCacheOption kv;
  std::string model;
  std::string preset;
  std::string weights = "int8";
  int factor_group = 128;
  std::string images;
  int context = 0;  // 0: not given
  std::optional<int> buffer_mb;
  std::string trace;
  BenchRowsOptions rows;
  bool as_json = false;
  bool quiet = false;
};

// A model whose weights have a place: in a file, or in memory once they are made.
struct Subject {
  std::string name;
  ModelConfig config;
  std::optional<OpenedModel> file;
  std::unique_ptr<RandomWeights> random;
  int64_t bytes = 0;  // of all weights
  bool quantised = false;
};

Subject open_subject(const BenchOptions& options) {
  Subject subject;
  if (options.preset.empty()) {
    subject.file.emplace(open_model(find_model(options.model)));
    subject.name = subject.file->path.string();
    subject.config = subject.file->config;
    for (const auto& [name, tensor] : subject.file->checkpoint.tensors()) {
      subject.bytes += tensor.bytes();
      subject.quantised = subject.quantised || tensor.quantised();
    }
    return subject;
  }
  const auto& names = weight_format_names();
  const auto format =
      static_cast<WeightFormat>(std::ranges::find(names, options.weights) - names.begin());
  subject.name = options.preset;
  subject.config = preset_config(options.preset);
  subject.random = std::make_unique<RandomWeights>(subject.config, format, options.factor_group);
  subject.bytes = subject.random->bytes();
  subject.quantised = format >= WeightFormat::kInt8;
  return subject;
}

BenchShape choose_shape(const ModelConfig& config, const BenchOptions& options) {
  const int window = config.context;
  if (options.context >= window) {
    host::fail("--context {}: the model's context is {} tokens, and one is decoded",
               options.context, window);
  }
  const int image_rows = config.vision ? config.vision->image_rows() : 0;
  if (image_rows >= window) {
    host::fail("a picture of {} rows does not fit the context of {}", image_rows, window);
  }
  const int wanted = config.vision ? image_rows + kQuestionRows : kPromptRows;
  BenchShape shape;
  shape.prompt_rows = std::min(wanted, window);
  shape.context = options.context > 0      ? options.context
                  : window > kUsualContext ? kUsualContext
                                           : std::max(1, window / 2);
  shape.most_batch = *std::ranges::max_element(options.rows.batches);
  shape.kv_dtype = options.kv.get();
  if (options.rows.captions) {
    if (!config.vision) host::fail("--caption: this model reads text only");
    shape.caption_tokens = kCaptionTokens;
    if (shape.capacity() > window) {
      host::fail("--caption: a picture and {} tokens do not fit the context of {}", kCaptionTokens,
                 window);
    }
  }
  return shape;
}

// What a run takes, in bytes. Activations are the large ones only.
struct MemoryNeed {
  int64_t weights = 0;
  int64_t copies = 0;
  int64_t cache = 0;
  int64_t activations = 0;
  int64_t buffer = 0;

  int64_t all() const { return weights + copies + cache + activations + buffer; }
};

MemoryNeed memory_need(const Subject& subject, const BenchShape& shape, const BenchOptions& options,
                       int64_t buffer) {
  MemoryNeed need;
  need.weights = subject.bytes;
  need.buffer = buffer;
  std::visit(
      [&](const auto& text) {
        need.cache = int64_t{2} * text.num_hidden_layers * text.kv_width() * shape.most_batch *
                     shape.capacity() * kernels::bytes_per_element(shape.kv_dtype);
        const int64_t rows = std::max(shape.prompt_rows, shape.most_batch);
        need.activations = 4 * (rows * (6 * text.hidden_size + 2 * text.intermediate_size) +
                                int64_t{2} * shape.most_batch * text.vocab_size);
        // The embedding of quantised weights becomes fp32, the rest is packed.
        if (subject.quantised) {
          need.copies = subject.bytes + int64_t{4} * text.vocab_size * text.hidden_size;
        }
      },
      subject.config.text);
  if (options.pipeline.backend.name != "cpu") need.copies = std::max(need.copies, subject.bytes);
  return need;
}

void require_memory(const MemoryNeed& need) {
  const int64_t available = host::available_memory().bytes;
  if (need.all() <= available) return;
  const auto giga = [](int64_t bytes) { return static_cast<double>(bytes) / 1e9; };
  host::fail(
      "too little memory: this takes about {:.2f} GB (weights {:.2f}, copies of them laid out for "
      "the backend {:.2f}, keys and values {:.2f}, activations {:.2f}, buffer {:.2f}) and {:.2f} "
      "GB are available; lower --batch, --context or --buffer, or choose smaller --weights",
      giga(need.all()), giga(need.weights), giga(need.copies), giga(need.cache),
      giga(need.activations), giga(need.buffer), giga(available));
}

ModelWeights get_weights(Subject& subject, int threads, bool quiet) {
  if (subject.file) {
    kernels::TensorReader reader(subject.file->checkpoint);
    ModelWeights weights = read_weights(reader, subject.config);
    reader.finish();
    return weights;
  }
  host::ThreadPool pool(threads);
  Progress progress("MB of weights", subject.bytes / kMega, !quiet);
  return subject.random->fill(pool, [&](int64_t bytes) { progress.advance(bytes / kMega); });
}

// Opens the file as every other command does.
BenchRow time_load(const Subject& subject, const BenchOptions& options) {
  const auto open = [&] { const Pipeline opened(subject.file->path, options.pipeline); };
  const Stopwatch watch;
  open();
  BenchRow row = {.name = "load"};
  row.seconds = median_seconds(open, watch.elapsed_ms() / 1e3, options.rows.repeat);
  row.work.bytes = subject.bytes;
  return row;
}

void run_rows(BenchOptions& options) {
  const auto say = [&](const std::string& line) {
    if (!options.quiet) note(line);
  };
  options.rows.begin = [&](const std::string& row) { say("timing " + row); };
  kernels::BackendOptions& backend = options.pipeline.backend;
  if (backend.threads == 0) backend.threads = host::available_processors();

  Subject subject = open_subject(options);
  const BenchShape shape = choose_shape(subject.config, options);
  options.pipeline.kv_dtype = shape.kv_dtype;
  const int64_t buffer =
      options.buffer_mb ? *options.buffer_mb * kMega : kernels::LimitMeter::default_buffer_bytes();
  require_memory(memory_need(subject, shape, options, buffer));
  say("measuring the machine");
  kernels::LimitMeter meter(backend.threads, backend.isa, buffer);
  meter.measure();

  BenchReport report;
  const std::vector<std::string>& names = options.rows.names;
  if (subject.file && (names.empty() || std::ranges::find(names, "load") != names.end())) {
    options.rows.begin("load");
    report.rows.push_back(time_load(subject, options));
  }
  if (subject.random) {
    say(fmt::format("making {:.2f} GB of random {} weights",
                    static_cast<double>(subject.bytes) / 1e9, options.weights));
  }
  const ModelWeights weights = get_weights(subject, backend.threads, options.quiet);
  std::unique_ptr<kernels::Ops> ops = kernels::make_backend(backend);
  kernels::ProfiledOps* profiler = nullptr;
  if (!options.trace.empty()) {
    auto profiled = kernels::make_profiled_ops(std::move(ops));
    profiler = profiled.get();
    ops = std::move(profiled);
  }
  BenchModel model(subject.config, weights, shape, std::move(ops));
  std::ranges::move(time_rows(model, shape, subject.config.vision.has_value(), options.rows),
                    std::back_inserter(report.rows));
  meter.measure();
  if (profiler) profiler->save(options.trace);
  report.model = subject.name;
  report.weights = model.ops().weight_format();
  report.processor = kernels::processor_name();
  report.isa = meter.isa();
  report.kv = options.kv.name();
  report.threads = meter.threads();
  report.limits = meter.limits();
  print(options.as_json ? json_line(to_json(report)) : to_table(report));
}

void run_bench(BenchOptions& options) {
  const char* isa = std::getenv("OCELLI_ISA");
  if (isa) options.pipeline.backend.isa = isa;
  if (options.images.empty()) {
    run_rows(options);
    return;
  }
  options.pipeline.kv_dtype = options.kv.get();
  Pipeline pipeline(find_model(options.model), options.pipeline);
  bench_images(pipeline, options.images, options.as_json, options.quiet);
}

void add_subject_options(CLI::App& command, BenchOptions& options) {
  CLI::Option* model = command.add_option(
      "-m,--model", options.model,
      "Model: file or directory (default: $OCELLI_MODEL, else the bundled demo)");
  CLI::Option* preset = command
                            .add_option("--preset", options.preset,
                                        "A model's shape, with random weights: no file is needed")
                            ->check(CLI::IsMember(preset_names()))
                            ->excludes(model);
  command.add_option("--weights", options.weights, "How a preset's weights are stored")
      ->check(CLI::IsMember(weight_format_names()))
      ->capture_default_str()
      ->needs(preset);
  command
      .add_option("--group", options.factor_group,
                  "Weights that share a factor under --weights int4")
      ->check(CLI::IsMember({32, 64, 128}))
      ->capture_default_str()
      ->needs(preset);
  command
      .add_option("--images", options.images,
                  "Time the steps of an answer about each picture of a folder instead")
      ->excludes(preset);
}

}  // namespace

void add_bench(CLI::App& program) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* command = program.add_subcommand("bench", "Measure how fast a model runs here");
  add_subject_options(*command, *options);
  command
      ->add_option("--context", options->context,
                   "Tokens in the cache while decoding (default: 800, or half the model's context)")
      ->check(CLI::Range(1, 1 << 20));
  command->add_option("--batch", options->rows.batches, "Sequences that decode together: 1,16")
      ->delimiter(',')
      ->check(CLI::Range(1, 256))
      ->default_str("1");
  command->add_flag("--caption", options->rows.captions,
                    "Also make whole captions of 30 tokens, as many at a time as --batch says");
  command
      ->add_option("--rows", options->rows.names,
                   "Time these only: load, encode, connector, prefill, first_token, decode")
      ->delimiter(',')
      ->check(CLI::IsMember(bench_row_names()));
  command
      ->add_option("--repeat", options->rows.repeat,
                   "Repetitions, of which the median counts (default: 5, or what fits 30 s a row)")
      ->check(CLI::Range(1, 1000));
  command
      ->add_option(
          "--buffer", options->buffer_mb,
          "MB read to measure the bandwidth (default: 4 times the last cache, at most 1 GB)")
      ->check(CLI::Range(1, 1 << 20));
  kernels::BackendOptions& backend = options->pipeline.backend;
  command->add_option("--backend", backend.name, "Machine to compute on")
      ->check(CLI::IsMember(kernels::backend_names()))
      ->capture_default_str();
  command->add_option("--threads", backend.threads, "Threads (default: every core)")
      ->check(CLI::Range(1, 1024));
  options->kv.add_to(*command);
  command->add_option("--trace", options->trace,
                      "Write a trace of every operation, for ui.perfetto.dev");
  command->add_flag("--json", options->as_json, "Print one JSON object");
  command->add_flag("-q,--quiet", options->quiet, "Print results and errors only");
  command->footer(
      "Examples:\n"
      "  ocelli bench --preset tinyllava-3.1b --weights int8 --batch 1,16 --caption\n"
      "  ocelli bench -m TinyLLaVA-Phi-2-SigLIP-3.1B/ --json\n"
      "  ocelli bench --images photos/");
  command->callback([options] { run_bench(*options); });
}

}  // namespace ocelli::app
