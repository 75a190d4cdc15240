// The rows of a benchmark: which steps of a model are timed, and how.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "app/bench_model.h"
#include "app/bench_report.h"

namespace ocelli::app {

struct BenchRowsOptions {
  std::vector<int> batches = {1};  // to decode
  std::optional<int> repeat;       // none: kUsualRepeats, or fewer when a row takes long
  std::function<void(const std::string& row)> begin;  // called before each
};

inline constexpr int kUsualRepeats = 5;

// Times `step` after one run that does not count (the caller's, or `warm` seconds long), and
// returns the median of its repetitions in seconds. A repetition is as many steps as take a tenth
// of a second.
double median_seconds(const std::function<void()>& step, double warm, std::optional<int> repeat);

// encode, connector, prefill, first_token (those with pictures for models that see), and decode for
// every batch.
std::vector<BenchRow> time_rows(BenchModel& model, const BenchShape& shape, bool sees,
                                const BenchRowsOptions& options);

}  // namespace ocelli::app
