#include "app/caption_record.h"

#include <algorithm>
#include <array>
#include <climits>
#include <cmath>

#include "host/error.h"
#include "host/json.h"

namespace ocelli::app {
namespace {

// In the order of the enumeration.
constexpr std::array<const char*, 7> kNames = {
    "ok", "empty", "looping", "refused", "low_confidence", "forbidden", "error"};

double rounded(double value, double decimals) {
  return std::round(value * decimals) / decimals;
}

}  // namespace

const char* name(CaptionStatus status) {
  return kNames[static_cast<size_t>(status)];
}

std::optional<CaptionStatus> parse_caption_status(std::string_view text) {
  const auto* const found = std::ranges::find(kNames, text);
  if (found == kNames.end()) return std::nullopt;
  return static_cast<CaptionStatus>(found - kNames.begin());
}

nlohmann::ordered_json to_json(const CaptionRecord& record) {
  nlohmann::ordered_json object;
  object["path"] = record.path;
  if (!record.sha256.empty()) object["sha256"] = record.sha256;
  object["status"] = name(record.status);
  if (record.status != CaptionStatus::kError) {
    object["caption"] = record.caption;
    object["tokens"] = record.tokens;
    object["confidence"] = rounded(record.confidence, 1e4);
  }
  object["milliseconds"] = rounded(record.milliseconds, 1e1);
  object["model"] = record.model;
  object["settings"] = record.settings;
  if (record.retried) object["retried"] = true;
  if (record.status == CaptionStatus::kError) object["error"] = record.error;
  return object;
}

std::string to_line(const CaptionRecord& record) {
  return to_json(record).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

CaptionRecord parse_caption_record(std::string_view line, const std::string& where) {
  const host::JsonObject object(host::parse_json(line, where), where);
  const std::string status = object.string("status", std::nullopt);
  const std::optional<CaptionStatus> parsed = parse_caption_status(status);
  if (!parsed) host::fail("{}: the status \"{}\" is not known", where, host::printable(status));
  const bool failed = *parsed == CaptionStatus::kError;
  CaptionRecord record;
  record.status = *parsed;
  record.path = object.string("path", std::nullopt);
  record.sha256 = object.string("sha256", "");
  if (!failed) {
    record.caption = object.string("caption", std::nullopt);
    record.tokens = object.integer("tokens", 0, 0, INT_MAX);
    record.confidence = object.number("confidence", 0, 0, 1);
  }
  record.milliseconds = object.number("milliseconds", 0, 0);
  record.model = object.string("model", "");
  record.settings = object.string("settings", "");
  record.retried = object.boolean("retried", false);
  if (failed) record.error = object.string("error", std::nullopt);
  return record;
}

}  // namespace ocelli::app
