#include "app/caption_tables.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "app/json_output.h"
#include "app/terminal.h"
#include "host/error.h"
#include "host/output_file.h"

namespace ocelli::app {
namespace {

namespace fs = std::filesystem;

constexpr const char* kCsvHeader = "path,caption,status,tokens,confidence,error\n";

// Where the table of this format goes.
std::string path_of(CaptionFormat format, const CaptionOutputOptions& options,
                    const CaptionInputs& inputs) {
  const auto tables = std::ranges::count_if(options.formats, is_table);
  if (tables == 1 && !options.file.empty()) return options.file;
  if (format == CaptionFormat::kImageFolder) {
    return (inputs.folder == "." ? fs::path() : fs::path(inputs.folder)) / "metadata.jsonl";
  }
  const char* const extension = format == CaptionFormat::kCsv ? ".csv" : ".jsonl";
  if (!options.file.empty()) {
    // -o names the one whose extension it has; where it has neither, JSON Lines.
    const bool named = format == CaptionFormat::kJsonl ? !options.file.ends_with(".csv")
                                                       : options.file.ends_with(extension);
    return named ? options.file : fs::path(options.file).replace_extension(extension).string();
  }
  if (options.directory.empty()) {
    throw UsageError("--format jsonl and csv need a place: -o captions.jsonl, or --out-dir");
  }
  return fs::path(options.directory) / (std::string("captions") + extension);
}

// `path` below `folder`; empty where it is not.
std::string below(const std::string& folder, const std::string& path) {
  const fs::path relative = fs::path(path).lexically_relative(folder);
  return relative.empty() || *relative.begin() == ".." ? "" : relative.string();
}

// A field of RFC 4180.
std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == text.npos) return text;
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + '"';
}

std::string csv_line(const CaptionRecord& record) {
  const bool good = record.status == CaptionStatus::kOk;
  return fmt::format("{},{},{},{},{:.4f},{}\n", csv_field(record.path),
                     good ? csv_field(record.caption) : "", name(record.status), record.tokens,
                     record.confidence, csv_field(record.error));
}

std::string line_of(const CaptionTable& table, const CaptionRecord& record) {
  switch (table.format) {
    case CaptionFormat::kCsv:
      return csv_line(record);
    case CaptionFormat::kImageFolder:
      if (record.status != CaptionStatus::kOk) return "";
      return json_line({{"file_name", below(table.folder, record.path)}, {"text", record.caption}});
    default:
      return to_line(record);
  }
}

}  // namespace

std::vector<CaptionTable> plan_tables(const CaptionOutputOptions& options,
                                      const CaptionInputs& inputs) {
  std::vector<CaptionTable> tables;
  for (const CaptionFormat format : options.formats) {
    if (!is_table(format)) continue;
    CaptionTable table = {format, path_of(format, options, inputs), ""};
    const bool twice = std::ranges::any_of(
        tables, [&](const CaptionTable& other) { return other.path == table.path; });
    if (twice) throw UsageError("two tables would be " + table.path);
    if (format == CaptionFormat::kImageFolder) {
      const fs::path parent = fs::path(table.path).parent_path();
      table.folder = parent.empty() ? "." : parent.string();
      for (const CaptionInput& picture : inputs.pictures) {
        if (!below(table.folder, picture.path).empty()) continue;
        host::fail("{}: lies outside {}, the folder of {}", host::printable(picture.path, 300),
                   host::printable(table.folder, 300), host::printable(table.path, 300));
      }
    }
    tables.push_back(std::move(table));
  }
  return tables;
}

void claim_tables(const std::vector<CaptionTable>& tables, IfExists if_exists,
                  CaptionJournal& journal) {
  for (const CaptionTable& table : tables) {
    if (table.path == "-") continue;
    const fs::path path = table.path;
    const std::string name = path.filename().string();
    std::error_code missing;
    const bool foreign = fs::is_regular_file(path, missing) && !journal.knows_output(name);
    if (foreign && if_exists != IfExists::kOverwrite) {
      host::fail(
          "{}: is there already, and by its journal no run has written it: choose another -o, or "
          "replace it with --if-exists overwrite",
          host::printable(table.path, 300));
    }
    journal.add_output(name);
    host::remove_abandoned(path.has_parent_path() ? path.parent_path() : ".",
                           [&](const std::string& target) { return target == name; });
  }
}

TableWriter::TableWriter(CaptionTable table, const CaptionOutputOptions& options, size_t pictures,
                         RecordOf record_of)
    : table_(std::move(table)),
      options_(options),
      pictures_(pictures),
      record_of_(std::move(record_of)) {
}

void TableWriter::advance() {
  if (table_.path == "-") write_lines(true, print);
}

void TableWriter::finish() {
  if (table_.path == "-") return write_lines(false, print);
  host::OutputFile file(table_.path);
  write_lines(false, [&](const std::string& text) { file.write(text); });
  file.sync();
  file.commit();
}

void TableWriter::write_lines(bool in_order, const std::function<void(const std::string&)>& write) {
  if (!std::exchange(begun_, true) && table_.format == CaptionFormat::kCsv) write(kCsvHeader);
  for (; next_ < pictures_; ++next_) {
    std::optional<CaptionRecord> record = record_of_(next_);
    if (!record && in_order) return;
    if (!record) continue;
    if (record->status == CaptionStatus::kOk) {
      record->caption = decorated(record->caption, options_);
    }
    if (const std::string line = line_of(table_, *record); !line.empty()) write(line);
  }
}

}  // namespace ocelli::app
