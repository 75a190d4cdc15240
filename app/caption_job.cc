#include "app/caption_job.h"

#include <algorithm>
#include <filesystem>

#include "app/caption_journal.h"
#include "app/caption_report.h"
#include "app/caption_run.h"
#include "app/caption_settings.h"
#include "app/caption_share.h"
#include "app/caption_sidecars.h"
#include "app/caption_tables.h"
#include "app/caption_tally.h"
#include "app/memory.h"
#include "app/terminal.h"
#include "app/text.h"
#include "host/error.h"
#include "host/thread_pool.h"

namespace ocelli::app {
namespace {

// What a thread that decodes may have in hand: the pixels of a small picture and its file.
constexpr int64_t kFeedThreadBytes = 130'000'000;
// The copy of a picture that its map is drawn on.
constexpr int64_t kCopyBytes = 5'000'000;

int thread_count(const ModelOptions& model) {
  const int threads = model.pipeline.backend.threads;
  return threads > 0 ? threads : host::available_processors();
}

// Decoding takes a small part of the encoder's time.
int feed_thread_count(const ModelOptions& model) {
  return std::clamp(thread_count(model) / 4, 1, 8);
}

// What is to be done, before anything is loaded.
struct Plan {
  CaptionOutputOptions outputs;
  CaptionInputs inputs;  // those to be captioned
  size_t skipped = 0;    // those that have captions
  std::string journal;
  std::optional<Shard> shard;
};

Plan make_plan(CaptionOptions& options) {
  Plan plan;
  plan.outputs = completed(options.outputs);
  plan.inputs = find_pictures(options.sources);
  if (const auto& maps = options.heatmap.path; !maps.empty()) {
    leave_out_maps(maps.string(), options.sources, plan.inputs);
  }
  for (const std::string& line : plan.inputs.notes) note("ocelli: " + line);
  plan.journal =
      options.journal.empty() ? default_journal(plan.outputs, plan.inputs) : options.journal;
  // Of all pictures: two that would share a sidecar may belong to two shards.
  const CaptionSidecars sidecars(plan.outputs, plan.inputs.pictures);
  plan.shard = find_share(options.shard, plan.outputs);
  if (plan.shard) {
    const size_t all = plan.inputs.pictures.size();
    keep_share(*plan.shard, plan.inputs);
    plan.journal = share_path(plan.journal, *plan.shard);
    if (!options.model.quiet) {
      note(fmt::format("{}{} of {} images", share_label(plan.shard), plan.inputs.pictures.size(),
                       all));
    }
  }
  // On a report and among maps are all pictures: captions that are there are in the journal.
  const bool every_one = !options.report.empty() || !options.heatmap.path.empty();
  if (std::ranges::none_of(plan.outputs.formats, is_table) && !every_one) {
    plan.skipped = std::erase_if(plan.inputs.pictures, [&](const CaptionInput& picture) {
      return !sidecars.wanted(picture);
    });
  }
  return plan;
}

// What would be written, on standard output.
void show_plan(const Plan& plan, const CaptionSidecars& sidecars,
               const std::vector<CaptionTable>& tables) {
  for (const CaptionInput& picture : plan.inputs.pictures) {
    std::string line = picture.path;
    for (const std::string& path : sidecars.paths(picture)) line += " -> " + path;
    print(line + "\n");
  }
  for (const CaptionTable& table : tables) {
    print(fmt::format("{} captions -> {}\n", plan.inputs.pictures.size(), table.path));
  }
  if (!plan.journal.empty()) print("journal -> " + plan.journal + "\n");
  if (plan.skipped > 0) print(fmt::format("{} images have captions already\n", plan.skipped));
}

// Sets how long the longest caption is, and how many positions it takes with what comes before it.
void fit_context(const OpenedModel& opened, const CaptionOptions& options,
                 CaptionSettings& settings, PipelineOptions& pipeline) {
  if (!opened.config.vision) {
    host::fail("{}: reads text only ({}): it cannot caption pictures", opened.path.string(),
               opened.config.model_type);
  }
  const auto tokenizer =
      pipeline.tokenizer ? load_vocabulary(*pipeline.tokenizer) : opened.load_tokenizer();
  const llm::PromptTemplate prompts(*tokenizer, pipeline.system);
  const llm::Prompt prompt = prompts.first_turn(settings.prompt, 1, settings.answer.begin_with);
  const int rows = static_cast<int>(llm::text_tokens(prompt)) + opened.config.vision->image_rows();
  const int most = opened.config.context - rows + 1;  // the last token needs no position
  const int wanted =
      settings.answer.max_tokens.value_or(std::min(CaptionOptions::kUsualTokens, most));
  if (wanted > most || wanted < 1) {
    host::fail(
        "the context is too small: of {} positions the prompt and a picture need {} and the "
        "caption up to {}: shorten --prompt or lower --max-tokens",
        opened.config.context, rows, options.sampling.max_tokens);
  }
  settings.answer.max_tokens = wanted;
  pipeline.context = rows + wanted - 1;
}

CaptionSettings make_settings(CaptionOptions& options) {
  CaptionSettings settings;
  settings.prompt = trimmed(options.prompt);
  if (settings.prompt.empty()) throw UsageError("--prompt is empty");
  settings.answer = options.sampling.get();
  settings.answer.begin_with = trimmed(options.begin_with);
  settings.gates.min_confidence = options.min_confidence;
  settings.gates.forbidden = ForbiddenWords(options.forbidden);
  settings.decode = options.input.decode;
  return settings;
}

// How many captions decode together; says what that takes before it is taken.
int choose_batch(const OpenedModel& opened, const CaptionOptions& options, size_t pictures) {
  const int threads = feed_thread_count(options.model);
  int64_t feed = kFeedThreadBytes * threads;
  if (!options.heatmap.path.empty()) {
    feed += kCopyBytes * (threads + 2 * options.batch.value_or(CaptionOptions::kUsualBatch));
  }
  AvailableMemory available = available_memory();
  if (options.max_memory) {
    available = limited_to(available, static_cast<int64_t>(*options.max_memory));
  }
  PipelineOptions pipeline = options.model.pipeline;
  if (options.batch) {
    pipeline.sequences = *options.batch;
  } else {
    const int most = static_cast<int>(std::min<size_t>(pictures, CaptionOptions::kUsualBatch));
    pipeline.sequences = sequences_that_fit(opened, pipeline, available.bytes - feed, most);
  }
  MemoryForecast forecast = forecast_memory(opened, pipeline);
  forecast.program += feed;
  if (!options.model.quiet) {
    note(fmt::format("{} at a time, each of up to {} positions: about {}", pipeline.sequences,
                     pipeline.context, memory_text(forecast)));
  }
  require_memory(forecast, available);
  const std::string warning = memory_note(forecast, available);
  if (!options.model.quiet && !warning.empty()) note(warning);
  return pipeline.sequences;
}

// Everything behind the plan.
class Job {
 public:
  Job(CaptionOptions& options, Plan plan)
      : options_(options),
        plan_(std::move(plan)),
        sidecars_(plan_.outputs, plan_.inputs.pictures),
        tables_(plan_tables(plan_.outputs, plan_.inputs)) {
    if (!options.heatmap.path.empty()) maps_.emplace(options.heatmap, plan_.inputs.pictures);
    if (plan_.shard) name_shares(tables_, *plan_.shard);
    if (plan_.shard && !options.report.empty()) {
      options.report = part_path(options.report, *plan_.shard);
    }
  }

  void run() {
    if (!plan_.inputs.left_out.empty()) {
      say("left out, of formats that are not read: " + plan_.inputs.left_out);
    }
    if (options_.dry_run) return show_plan(plan_, sidecars_, tables_);
    if (plan_.inputs.pictures.empty()) return finish_without_pictures();
    require_places();
    CaptionSettings settings = make_settings(options_);
    const std::filesystem::path path = options_.model.prepare();
    OpenedModel opened = open_model(path);
    fit_context(opened, options_, settings, options_.model.pipeline);
    const int batch = choose_batch(opened, options_, plan_.inputs.pictures.size());
    settings.model = model_identity(find_model(options_.model.model), opened,
                                    options_.model.pipeline.backend.threads);
    const std::string hash = settings_hash(settings, options_.model);
    CaptionJournal journal(plan_.journal, hash);
    open_journal(journal);
    options_.model.pipeline.probe = maps_.has_value();
    Pipeline pipeline = options_.model.load(std::move(opened), batch);
    CaptionRun captions(pipeline, settings, hash, journal);
    if (maps_) captions.draw(*maps_);
    const RecordOf records = [&](size_t i) { return record_of(i, captions, journal); };
    std::vector<TableWriter> writers = make_writers(records);
    const bool whole = caption(captions, writers);
    finish_tables(whole, writers);
    options_.model.finish(pipeline);
    show_report(settings, records);
    finish(whole);
  }

 private:
  void say(const std::string& line) const {
    if (!options_.model.quiet && !line.empty()) note(line);
  }

  std::string skipped_text() const {
    if (plan_.skipped == 0) return "";
    return fmt::format("{} images have captions already (--if-exists overwrite makes new ones)",
                       plan_.skipped);
  }

  // Throws unless all that will be written can be.
  void require_places() const {
    for (const CaptionTable& table : tables_) require_writable(table.path);
    if (!plan_.journal.empty()) require_writable(plan_.journal);
    if (!options_.report.empty()) require_writable(options_.report);
    if (maps_) maps_->prepare();
    sidecars_.prepare(plan_.inputs.pictures);
  }

  void open_journal(CaptionJournal& journal) const {
    say(journal.repairs());
    say(skipped_text());
    if (options_.retry_errors) journal.forget_failures();
    if (journal.resumable() > 0) {
      say(fmt::format("{}: {} captions are done", plan_.journal, journal.resumable()));
    } else if (journal.others() > 0) {
      say(fmt::format("{}: its {} captions are of another model, prompt or settings", plan_.journal,
                      journal.others()));
    }
    claim_tables(tables_, plan_.outputs.if_exists, journal);
  }

  bool caption(CaptionRun& captions, std::vector<TableWriter>& writers) {
    const size_t total = plan_.inputs.pictures.size();
    Progress progress("images", total, !options_.model.quiet, Progress::Rate::kPerMinute);
    progress.log(options_.log_seconds, share_label(plan_.shard));
    const auto done = [&](size_t index, const CaptionRecord& record, bool resumed) {
      if (record.status == CaptionStatus::kOk) {
        sidecars_.write(plan_.inputs.pictures[index], record.caption);
      }
      for (TableWriter& writer : writers) writer.advance();
      tally_.add(record, resumed);
      progress.advance(tally_.done(), tally_.resumed(), tally_.faults());
    };
    watch_ = {};
    return captions.run(plan_.inputs.pictures, feed_thread_count(options_.model), done);
  }

  // All pictures have captions, or none fell to this shard: its part then is empty.
  void finish_without_pictures() {
    say(skipped_text());
    if (!plan_.shard || tables_.empty()) return;
    require_places();
    CaptionJournal journal(plan_.journal, "");
    claim_tables(tables_, plan_.outputs.if_exists, journal);
    std::vector<TableWriter> writers = make_writers([](size_t) { return std::nullopt; });
    finish_tables(true, writers);
  }

  std::optional<CaptionRecord> record_of(size_t index, const CaptionRun& captions,
                                         const CaptionJournal& journal) const {
    if (captions.place(index) < 0) return std::nullopt;
    CaptionRecord record = journal.read(captions.place(index));
    record.path = plan_.inputs.pictures[index].path;
    return record;
  }

  void show_report(const CaptionSettings& settings, const RecordOf& records) const {
    if (options_.report.empty()) return;
    ReportOptions report;
    report.folder = plan_.inputs.folder;
    report.prompt = settings.prompt;
    report.decode = settings.decode;
    report.threads = feed_thread_count(options_.model);
    if (const size_t rest = plan_.inputs.pictures.size() - tally_.done(); rest > 0) {
      report.note = fmt::format(
          "{} more pictures are to be captioned: the same command goes on from here", rest);
    }
    write_report(options_.report, report, plan_.inputs.pictures, records);
    say(options_.report + ": a page to look at");
  }

  std::vector<TableWriter> make_writers(const RecordOf& records) const {
    std::vector<TableWriter> writers;
    for (const CaptionTable& table : tables_) {
      writers.emplace_back(table, plan_.outputs, plan_.inputs.pictures.size(), records);
    }
    return writers;
  }

  // A part that is there is whole, so that parts can be merged without asking what is in them.
  void finish_tables(bool whole, std::vector<TableWriter>& writers) const {
    for (TableWriter& writer : writers) {
      if (whole || !plan_.shard || is_stream(writer.path())) writer.finish();
    }
  }

  void finish(bool whole) const {
    const double seconds = watch_.elapsed_ms() / 1e3;
    for (const std::string& line : sidecars_.notes()) note("ocelli: " + line);
    tally_.show_reasons();
    say(share_label(plan_.shard) + tally_.summary(seconds));
    if (!whole) {
      say(fmt::format("stopped with {} images to do: the same command goes on from here",
                      plan_.inputs.pictures.size() - tally_.done()));
      throw Exit{kRetryExit};
    }
    // Those that have captions already are no failures, whichever run made them.
    if (tally_.failed() == tally_.done() && plan_.skipped == 0) throw Exit{1};
  }

  CaptionOptions& options_;
  Plan plan_;
  CaptionSidecars sidecars_;
  std::vector<CaptionTable> tables_;
  std::optional<CaptionMaps> maps_;
  CaptionTally tally_;
  Stopwatch watch_;
};

}  // namespace

void run_caption(CaptionOptions& options) {
  // From the beginning: a launcher passes signals on to processes that are still starting.
  if (!options.dry_run) catch_stop_signals();
  Job(options, make_plan(options)).run();
}

}  // namespace ocelli::app
