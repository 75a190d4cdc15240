#include "app/caption_outputs.h"

#include <algorithm>
#include <filesystem>

#include "app/terminal.h"
#include "host/error.h"
#include "host/output_file.h"

namespace ocelli::app {
namespace {

namespace fs = std::filesystem;

constexpr const char* kJournalName = "ocelli-captions.journal";

bool contains(const std::vector<CaptionFormat>& formats, CaptionFormat format) {
  return std::ranges::find(formats, format) != formats.end();
}

void require_sound_extension(CaptionOutputOptions& options) {
  std::string& extension = options.extension;
  if (extension.empty()) {
    extension = ".txt";
    return;
  }
  if (!contains(options.formats, CaptionFormat::kTxt)) {
    throw UsageError("--caption-extension is for --format txt");
  }
  if (!extension.starts_with('.')) extension.insert(0, 1, '.');
  if (extension.size() == 1 || extension.find('/') != extension.npos) {
    throw UsageError("--caption-extension is empty or holds a slash");
  }
  if (has_picture_suffix("x" + extension)) {
    throw UsageError("--caption-extension " + extension + " would write over pictures");
  }
}

}  // namespace

const std::vector<std::string>& caption_format_names() {
  static const std::vector<std::string> names = {"jsonl", "csv",     "imagefolder",
                                                 "txt",   "caption", "xmp"};
  return names;
}

const std::vector<std::string>& if_exists_names() {
  static const std::vector<std::string> names = {"skip", "overwrite", "append", "prepend"};
  return names;
}

bool is_table(CaptionFormat format) {
  return format <= CaptionFormat::kImageFolder;
}

CaptionOutputOptions completed(CaptionOutputOptions options) {
  std::vector<CaptionFormat>& formats = options.formats;
  if (formats.empty()) {
    formats.push_back(options.file.empty()             ? CaptionFormat::kTxt
                      : options.file.ends_with(".csv") ? CaptionFormat::kCsv
                                                       : CaptionFormat::kJsonl);
  }
  std::ranges::sort(formats);
  formats.erase(std::unique(formats.begin(), formats.end()), formats.end());
  const auto tables = std::ranges::count_if(formats, is_table);
  if (!options.file.empty() && tables == 0) {
    throw UsageError("-o names a table, but every --format is a sidecar: leave -o out");
  }
  if (options.file == "-" && tables > 1) {
    throw UsageError("-o -: standard output takes one --format");
  }
  if (has_picture_suffix(options.file)) {
    throw UsageError("-o " + options.file + " has a picture's suffix: it might be one");
  }
  require_sound_extension(options);
  return options;
}

bool is_stream(const std::string& path) {
  if (path == "-") return true;
  std::error_code missing;
  const fs::file_status status = fs::status(path, missing);
  return fs::exists(status) && !fs::is_regular_file(status) && !fs::is_directory(status);
}

std::string decorated(const std::string& caption, const CaptionOutputOptions& options) {
  return options.prefix + caption + options.suffix;
}

std::string default_journal(const CaptionOutputOptions& options, const CaptionInputs& inputs) {
  if (is_stream(options.file)) return "";
  if (!options.file.empty()) return options.file + ".journal";
  const fs::path folder = options.directory.empty() ? inputs.folder : options.directory;
  return (folder == "." ? fs::path(kJournalName) : folder / kJournalName).string();
}

void require_writable(const std::string& path) {
  if (is_stream(path)) return;
  const fs::path folder = fs::path(path).parent_path();
  std::error_code error;
  if (!folder.empty()) fs::create_directories(folder, error);
  if (error) {
    host::fail("{}: cannot be made: {}", host::printable(folder.string(), 300), error.message());
  }
  const host::OutputFile probe(path);
}

}  // namespace ocelli::app
