#include "app/caption_report.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <vector>

#include "app/html.h"
#include "app/report_files.h"
#include "app/thumbnails.h"
#include "host/error.h"
#include "host/output_file.h"

namespace ocelli::app {
namespace {

namespace fs = std::filesystem;

constexpr size_t kStatuses = static_cast<size_t>(CaptionStatus::kError) + 1;

// What the page's head says of all its pictures.
struct Totals {
  std::array<size_t, kStatuses> counts{};
  size_t pictures = 0;
  size_t captions = 0;
  double confidence = 0;  // the captions', added up
  std::string model;
  std::string settings;

  void add(const CaptionRecord& record) {
    ++counts[static_cast<size_t>(record.status)];
    ++pictures;
    if (model.empty()) model = record.model;
    if (settings.empty()) settings = record.settings;
    if (record.status == CaptionStatus::kError) return;
    ++captions;
    confidence += record.confidence;
  }
};

std::string part(std::string_view name, const HtmlValues& values) {
  return fill(html_part(kReportParts, name), values);
}

// "low confidence"
std::string words_of(CaptionStatus status) {
  std::string words = name(status);
  std::ranges::replace(words, '_', ' ');
  return words;
}

// 12,345
std::string grouped(size_t number) {
  std::string text = std::to_string(number);
  for (size_t at = text.size(); at > 3; at -= 3) text.insert(at - 3, 1, ',');
  return text;
}

// Rounded down: only what is certain has 100 %.
std::string percent(double share) {
  return fmt::format("{:.0f}", std::floor(share * 100));
}

std::string chips(const Totals& totals) {
  std::string html;
  for (size_t i = 0; i < kStatuses; ++i) {
    const auto status = static_cast<CaptionStatus>(i);
    if (totals.counts[i] == 0) continue;
    html += part("chip", {{"status", name(status)},
                          {"text", words_of(status)},
                          {"count", grouped(totals.counts[i])}});
  }
  return html;
}

std::string share_text(size_t some, size_t all) {
  // 99.96 % are not all.
  if (all == 0) return "–";
  const double tenths = std::floor(1000.0 * static_cast<double>(some) / static_cast<double>(all));
  return some == all ? "100 %" : fmt::format("{:.1f} %", tenths / 10);
}

// The page up to its cards, and what comes behind them.
std::pair<std::string, std::string> page_around_cards(const ReportOptions& options,
                                                      const Totals& totals) {
  const std::string_view page = kReportPage;
  const std::string_view kCards = "{{cards}}";
  const size_t cards = page.find(kCards);
  OCELLI_CHECK(cards != page.npos, "the page has no {}", kCards);
  const double mean = totals.confidence / static_cast<double>(std::max<size_t>(totals.captions, 1));
  const size_t good = totals.counts[static_cast<size_t>(CaptionStatus::kOk)];
  const HtmlValues values = {
      {"style_hash", policy_hash(kReportStyle)},
      {"early_hash", policy_hash(kReportEarlyScript)},
      {"script_hash", policy_hash(kReportScript)},
      {"style", std::string(kReportStyle)},
      {"early", std::string(kReportEarlyScript)},
      {"script", std::string(kReportScript)},
      {"title", escape_html(options.folder)},
      {"total", grouped(totals.pictures)},
      {"share", share_text(good, totals.pictures)},
      {"mean", totals.captions > 0 ? percent(mean) + " %" : "–"},
      {"model", escape_html(totals.model)},
      {"prompt", escape_html(options.prompt)},
      {"settings", escape_html(totals.settings)},
      {"chips", chips(totals)},
      {"note", options.note.empty() ? "" : part("note", {{"text", escape_html(options.note)}})}};
  return {fill(page.substr(0, cards), values), fill(page.substr(cards + kCards.size()), values)};
}

std::string picture_of(const std::optional<Thumbnail>& thumbnail) {
  if (!thumbnail) return part("no picture", {});
  return part("picture", {{"width", std::to_string(thumbnail->width)},
                          {"height", std::to_string(thumbnail->height)},
                          {"data", base64(std::as_bytes(std::span(thumbnail->jpeg)))}});
}

struct Places {
  std::string page;      // the folder of the report
  std::string pictures;  // the folder that the title names
};

std::string card(const CaptionRecord& record, const std::optional<Thumbnail>& thumbnail,
                 const Places& places) {
  const bool failed = record.status == CaptionStatus::kError;
  // What all of them have in common stands above the cards.
  const std::string common = places.pictures + "/";
  const std::string shown =
      record.path.starts_with(common) ? record.path.substr(common.size()) : record.path;
  const size_t slash = shown.rfind('/');
  const size_t name_at = slash == shown.npos ? 0 : slash + 1;
  const std::string sure = failed
                               ? ""
                               : part("sure", {{"value", fmt::format("{:.4f}", record.confidence)},
                                               {"percent", percent(record.confidence)}});
  std::string mark;
  if (record.status != CaptionStatus::kOk) {
    mark = part("mark", {{"text", words_of(record.status)}});
  } else if (record.retried) {
    mark = part("mark", {{"text", "second try"}});
  }
  return part("card", {{"status", name(record.status)},
                       {"confidence", failed ? "" : fmt::format("{:.4f}", record.confidence)},
                       {"href", link_to(record.path, places.page)},
                       {"picture", picture_of(thumbnail)},
                       {"caption", escape_html(record.caption)},
                       {"why", escape_html(record.error)},
                       {"path", escape_html(record.path)},
                       {"folder", escape_html(shown.substr(0, name_at))},
                       {"name", escape_html(shown.substr(name_at))},
                       {"mark", mark},
                       {"sure", sure}});
}

}  // namespace

void write_report(const std::string& path, const ReportOptions& options,
                  std::span<const CaptionInput> pictures,
                  const std::function<std::optional<CaptionRecord>(size_t)>& record_of) {
  Totals totals;
  std::vector<std::string> paths;
  for (size_t i = 0; i < pictures.size(); ++i) {
    const std::optional<CaptionRecord> record = record_of(i);
    if (!record) continue;
    totals.add(*record);
    if (record->status != CaptionStatus::kError) paths.push_back(record->path);
  }
  const auto [head, tail] = page_around_cards(options, totals);
  ThumbnailFeed thumbnails(std::move(paths), options.decode, options.threads);
  const Places places = {fs::path(path).parent_path().string(), options.folder};
  host::OutputFile file(path);
  file.write(head);
  for (size_t i = 0; i < pictures.size(); ++i) {
    const std::optional<CaptionRecord> record = record_of(i);
    if (!record) continue;
    std::optional<Thumbnail> thumbnail;
    if (record->status != CaptionStatus::kError) thumbnail = thumbnails.next(record->sha256);
    file.write(card(*record, thumbnail, places));
  }
  file.write(tail);
  file.commit();
}

}  // namespace ocelli::app
