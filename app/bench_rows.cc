#include "app/bench_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "app/stopwatch.h"

namespace ocelli::app {
namespace {

// Long beside a clock's tick and a time slice.
constexpr double kRepetitionSeconds = 0.1;
// Where --repeat is not given, a row ends after so long.
constexpr double kRowSeconds = 30;

double seconds_since(const Stopwatch& watch) {
  return std::max(watch.elapsed_ms() / 1e3, 1e-9);
}

double median(std::vector<double> times) {
  std::ranges::sort(times);
  const size_t middle = times.size() / 2;
  return times.size() % 2 == 1 ? times[middle] : (times[middle - 1] + times[middle]) / 2;
}

class RowTimer {
 public:
  RowTimer(BenchModel& model, const BenchRowsOptions& options) : model_(model), options_(options) {}

  void time(BenchRow row, const std::function<void()>& step) {
    const std::vector<std::string>& names = options_.names;
    if (!names.empty() && std::ranges::find(names, row.name) == names.end()) return;
    if (options_.begin) {
      options_.begin(row.batch > 1 ? fmt::format("{}, batch {}", row.name, row.batch) : row.name);
    }
    const Stopwatch watch;
    row.work = model_.ops().count(step);
    row.seconds = median_seconds(step, seconds_since(watch), options_.repeat);
    rows_.push_back(std::move(row));
  }

  // A long step that needs no warming: everything in it has been timed by itself.
  void time_once(BenchRow row, const std::function<void()>& step) {
    if (options_.begin) options_.begin(fmt::format("{}, {} at a time", row.name, row.batch));
    std::vector<double> times;
    for (int i = 0; i < options_.repeat.value_or(1); ++i) {
      const Stopwatch watch;
      row.work = model_.ops().count(step);
      times.push_back(seconds_since(watch));
    }
    row.seconds = median(std::move(times));
    rows_.push_back(std::move(row));
  }

  std::vector<BenchRow> take() { return std::move(rows_); }

 private:
  BenchModel& model_;
  const BenchRowsOptions& options_;
  std::vector<BenchRow> rows_;
};

}  // namespace

const std::vector<std::string>& bench_row_names() {
  static const std::vector<std::string> names = {"load",    "encode",      "connector",
                                                 "prefill", "first_token", "decode"};
  return names;
}

double median_seconds(const std::function<void()>& step, double warm, std::optional<int> repeat) {
  const int steps = std::max(1, static_cast<int>(std::ceil(kRepetitionSeconds / warm)));
  const Stopwatch all;
  std::vector<double> times;
  for (int i = 0; i < repeat.value_or(kUsualRepeats); ++i) {
    if (!repeat && i > 0 && seconds_since(all) > kRowSeconds) break;
    const Stopwatch watch;
    for (int k = 0; k < steps; ++k) step();
    times.push_back(seconds_since(watch) / steps);
  }
  return median(std::move(times));
}

std::vector<BenchRow> time_rows(BenchModel& model, const BenchShape& shape, bool sees,
                                const BenchRowsOptions& options) {
  RowTimer timer(model, options);
  if (sees) {
    timer.time({.name = "encode"}, [&] { model.encode(); });
    timer.time({.name = "connector"}, [&] { model.connect(); });
  }
  timer.time({.name = "prefill", .tokens = shape.prompt_rows}, [&] { model.prefill(); });
  if (sees) timer.time({.name = "first_token"}, [&] { model.first_token(); });
  model.fill_cache();
  for (const int batch : options.batches) {
    timer.time({.name = "decode", .context = shape.context, .batch = batch, .tokens = batch},
               [&] { model.decode(batch); });
  }
  if (!options.captions) return timer.take();
  for (const int batch : options.batches) {
    const int count = batch * kCaptionsEach;
    timer.time_once(
        {.name = "caption", .batch = batch, .tokens = count * kCaptionTokens, .captions = count},
        [&] { model.caption(count, batch); });
  }
  return timer.take();
}

}  // namespace ocelli::app
