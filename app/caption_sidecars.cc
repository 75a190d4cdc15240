#include "app/caption_sidecars.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>
#include <unordered_map>
#include <unordered_set>

#include "app/xmp.h"
#include "host/error.h"
#include "host/output_file.h"

namespace ocelli::app {
namespace {

namespace fs = std::filesystem;

// More is no caption; so that a large file of another kind is not read into memory.
constexpr uintmax_t kMaxSidecarBytes = 1 << 20;

// The text of a sidecar without the line ends behind it; nothing where there is no file.
std::optional<std::string> read_text(const std::string& path) {
  std::error_code missing;
  const auto size = fs::file_size(path, missing);
  if (missing) return std::nullopt;
  if (size > kMaxSidecarBytes) {
    host::fail("{}: has {} bytes: that is no caption", host::printable(path, 300), size);
  }
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) host::fail("{}: cannot be read", host::printable(path, 300));
  std::string content = text.str();
  while (content.ends_with('\n') || content.ends_with('\r')) content.pop_back();
  return content;
}

// What stands there and the caption together; nothing when that would change nothing.
std::optional<std::string> combined(const std::string& there, const std::string& caption,
                                    const CaptionOutputOptions& options) {
  const bool append = options.if_exists == IfExists::kAppend;
  if (there.empty() || options.if_exists == IfExists::kOverwrite) return caption;
  if (options.if_exists == IfExists::kSkip || there == caption) return std::nullopt;
  // A run that was killed after it had written this adds nothing a second time.
  const bool done = append ? there.ends_with(options.separator + caption)
                           : there.starts_with(caption + options.separator);
  if (done) return std::nullopt;
  return append ? there + options.separator + caption : caption + options.separator + there;
}

void write_file(const std::string& path, const std::string& bytes) {
  host::OutputFile file(path);
  file.write(bytes);
  file.commit();
}

}  // namespace

CaptionSidecars::CaptionSidecars(const CaptionOutputOptions& options,
                                 std::span<const CaptionInput> pictures)
    : options_(options) {
  std::ranges::copy_if(options.formats, std::back_inserter(formats_),
                       [](CaptionFormat format) { return !is_table(format); });
  std::unordered_map<std::string, const CaptionInput*> owners;
  for (const CaptionInput& picture : pictures) {
    for (const std::string& path : paths(picture)) {
      const auto [owner, fresh] = owners.emplace(path, &picture);
      if (fresh) continue;
      host::fail("{}: would be the caption of {} and of {}: rename one{}",
                 host::printable(path, 300), host::printable(owner->second->path, 300),
                 host::printable(picture.path, 300), ", or write a table (-o captions.jsonl)");
    }
  }
}

std::string CaptionSidecars::path_of(const CaptionInput& picture, CaptionFormat format) const {
  const std::string base = options_.directory.empty()
                               ? picture.path
                               : (fs::path(options_.directory) / picture.place).string();
  if (format == CaptionFormat::kXmp) return xmp_sidecar(base);
  return fs::path(base)
      .replace_extension(format == CaptionFormat::kTxt ? options_.extension : ".caption")
      .string();
}

std::vector<std::string> CaptionSidecars::paths(const CaptionInput& picture) const {
  std::vector<std::string> paths;
  for (const CaptionFormat format : formats_) paths.push_back(path_of(picture, format));
  return paths;
}

bool CaptionSidecars::taken(const std::string& path, CaptionFormat format) const {
  if (format == CaptionFormat::kXmp) {
    try {
      return xmp_description(path).has_value();
    } catch (const host::Error&) {
      return false;  // write() says what is wrong with it
    }
  }
  std::error_code missing;
  return fs::exists(path, missing);
}

bool CaptionSidecars::wanted(const CaptionInput& picture) const {
  if (options_.if_exists != IfExists::kSkip) return any();
  return std::ranges::any_of(
      formats_, [&](CaptionFormat format) { return !taken(path_of(picture, format), format); });
}

void CaptionSidecars::prepare(std::span<const CaptionInput> pictures) const {
  std::set<std::string> folders;
  std::unordered_set<std::string> sidecars;
  for (const CaptionInput& picture : pictures) {
    for (std::string& path : paths(picture)) {
      const fs::path folder = fs::path(path).parent_path();
      if (folders.insert(folder.string()).second) require_writable(path);
      sidecars.insert(std::move(path));
    }
  }
  for (const fs::path folder : folders) {
    host::remove_abandoned(folder.empty() ? "." : folder, [&](const std::string& name) {
      return sidecars.contains((folder / name).string());
    });
  }
}

void CaptionSidecars::write(const CaptionInput& picture, const std::string& caption) {
  for (const CaptionFormat format : formats_) {
    write_one(path_of(picture, format), format, decorated(caption, options_));
  }
}

void CaptionSidecars::write_one(const std::string& path, CaptionFormat format,
                                const std::string& caption) {
  std::string bytes;
  try {
    const bool xmp = format == CaptionFormat::kXmp;
    const std::optional<std::string> there = xmp ? xmp_description(path) : read_text(path);
    // An empty text file is a caption that is skipped; an empty description is none.
    if (there && options_.if_exists == IfExists::kSkip) return;
    const std::optional<std::string> text = combined(there.value_or(""), caption, options_);
    if (!text || text == there) return;
    bytes = xmp ? xmp_with_description(path, *text) : *text + "\n";
  } catch (const host::Error& error) {
    notes_.push_back(fmt::format("{} (left alone)", error.what()));
    return;
  }
  write_file(path, bytes);
}

}  // namespace ocelli::app
