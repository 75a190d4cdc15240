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
  std::vector<std::string> names;  // of the rows that are wanted; none: all
  bool captions = false;           // time whole captions as well
  std::optional<int> repeat;       // none: kUsualRepeats, or fewer when a row takes long
  std::function<void(const std::string& row)> begin;  // called before each
};

inline constexpr int kUsualRepeats = 5;
// What a caption row generates of each picture.
inline constexpr int kCaptionTokens = 30;
// Captions of a caption row for each that is made at a time: a folder has many, and those that take
// a finished one's place begin while others are being decoded.
inline constexpr int kCaptionsEach = 5;

// Times `step` after one run that does not count (the caller's, or `warm` seconds long), and
// returns the median of its repetitions in seconds. A repetition is as many steps as take a tenth
// of a second.
double median_seconds(const std::function<void()>& step, double warm, std::optional<int> repeat);

// The names of the rows there may be, in their order.
const std::vector<std::string>& bench_row_names();

// encode, connector, prefill, first_token (those with pictures for models that see), and decode for
// every batch; and, on request, caption for every batch: as many whole captions, at a time, timed
// once unless options.repeat says otherwise.
std::vector<BenchRow> time_rows(BenchModel& model, const BenchShape& shape, bool sees,
                                const BenchRowsOptions& options);

}  // namespace ocelli::app
