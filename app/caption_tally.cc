#include "app/caption_tally.h"

#include "app/terminal.h"
#include "host/error.h"

namespace ocelli::app {
namespace {

// Reasons that are shown, of pictures that failed.
constexpr size_t kMostReasons = 20;

}  // namespace

void CaptionTally::add(const CaptionRecord& record, bool resumed) {
  ++counts_[static_cast<size_t>(record.status)];
  ++done_;
  if (resumed) ++resumed_;
  if (record.status == CaptionStatus::kError && reasons_.size() < kMostReasons) {
    reasons_.push_back(host::printable(record.path, 300) + ": " + record.error);
  }
}

std::string CaptionTally::faults() const {
  std::string text = failed() > 0 ? fmt::format("{} failed", failed()) : "";
  for (size_t i = 1; i < counts_.size() - 1; ++i) {
    if (counts_[i] == 0) continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", counts_[i],
                        name(static_cast<CaptionStatus>(i)));
  }
  return text;
}

void CaptionTally::show_reasons() const {
  for (const std::string& reason : reasons_) note("ocelli: " + reason);
  if (failed() > reasons_.size()) {
    note(fmt::format("ocelli: and {} more failed", failed() - reasons_.size()));
  }
}

std::string CaptionTally::summary(double seconds) const {
  std::string text = fmt::format("{} images, {} captioned", done_, count(CaptionStatus::kOk));
  if (const std::string bad = faults(); !bad.empty()) text += ", " + bad;
  if (resumed_ > 0) text += fmt::format("; {} were done before", resumed_);
  const size_t fresh = done_ - resumed_;
  if (fresh > 0) text += fmt::format("; {:.1f} images/minute", fresh / seconds * 60);
  return text;
}

}  // namespace ocelli::app
