// What became of one picture: a line of captions.jsonl, of the journal, and of the parts of a
// sharded run.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace ocelli::app {

// Everything but kOk and kError is a caption that should not be taken for a good one; kError has
// no caption.
enum class CaptionStatus {
  kOk,
  kEmpty,
  kLooping,
  kRefused,
  kLowConfidence,
  kForbidden,
  kError,
};

// "ok", "empty", "looping", "refused", "low_confidence", "forbidden", "error"
const char* name(CaptionStatus status);
std::optional<CaptionStatus> parse_caption_status(std::string_view text);

struct CaptionRecord {
  std::string path;    // as the inputs name it
  std::string sha256;  // of the file's bytes, 64 hex digits; empty where they could not be read
  CaptionStatus status = CaptionStatus::kOk;
  std::string caption;
  int tokens = 0;         // generated, the one that ended the caption included
  double confidence = 0;  // mean probability that the model gave them, in [0, 1]
  double milliseconds = 0;
  std::string model;     // its name and the beginning of its content's hash
  std::string settings;  // 16 hex digits: of the model, the prompt and all that changes a caption
  bool retried = false;  // the caption is of the second attempt, with other settings
  std::string error;     // why there is no caption; only with kError

  bool operator==(const CaptionRecord&) const = default;
};

// The record as an object with its keys in the order above; what is empty by its status or its
// nature (sha256, retried, error) is left out. Confidence has 4 decimals, milliseconds have 1.
nlohmann::ordered_json to_json(const CaptionRecord& record);

// The object on one line with its newline; bytes that are not UTF-8 (in a path) become U+FFFD.
std::string to_line(const CaptionRecord& record);

// The record of a line, with or without its newline; keys that are not known are passed over.
// Throws host::Error beginning with `where` when it is no such object.
CaptionRecord parse_caption_record(std::string_view line, const std::string& where);

}  // namespace ocelli::app
