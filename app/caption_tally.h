// What became of a run's pictures so far, in numbers.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "app/caption_record.h"

namespace ocelli::app {

class CaptionTally {
 public:
  void add(const CaptionRecord& record, bool resumed);

  size_t done() const { return done_; }
  size_t resumed() const { return resumed_; }
  size_t failed() const { return count(CaptionStatus::kError); }

  // "2 failed, 1 looping"; empty when all is well.
  std::string faults() const;
  // The reasons of those that failed, as far as they are kept, on standard error.
  void show_reasons() const;
  std::string summary(double seconds) const;

 private:
  size_t count(CaptionStatus status) const { return counts_[static_cast<size_t>(status)]; }

  std::array<size_t, static_cast<size_t>(CaptionStatus::kError) + 1> counts_{};
  size_t done_ = 0;
  size_t resumed_ = 0;
  std::vector<std::string> reasons_;
};

}  // namespace ocelli::app
