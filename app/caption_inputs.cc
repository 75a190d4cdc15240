#include "app/caption_inputs.h"

#include <glob.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "app/batch.h"
#include "app/terminal.h"
#include "host/error.h"

namespace ocelli::app {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 14> kSuffixes = {".jpg",  ".jpeg", ".jpe", ".jfif", ".png",
                                                        ".webp", ".bmp",  ".dib", ".tif",  ".tiff",
                                                        ".ppm",  ".pgm",  ".pbm", ".pnm"};

// Pictures of formats that are not read; whoever has a folder of them wants to know.
constexpr std::array<std::string_view, 16> kOtherSuffixes = {
    ".heic", ".heif", ".avif", ".gif", ".jxl", ".jp2", ".psd", ".svg",
    ".dng",  ".cr2",  ".cr3",  ".nef", ".arw", ".orf", ".rw2", ".raf"};

// The file's extension in lower case (ASCII), with its dot.
std::string suffix_of(const std::string& path) {
  std::string suffix = fs::path(path).extension().string();
  for (char& c : suffix) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return suffix;
}

// Without "." and empty parts. ".." stays: behind a link it does not lead back.
std::string tidy(const fs::path& path) {
  fs::path result;
  for (const fs::path& part : path) {
    if (!part.empty() && part != ".") result /= part;
  }
  return result.empty() ? "." : result.string();
}

std::string folder_of(const std::string& path) {
  return tidy(fs::path(path).parent_path());
}

bool is_hidden(const fs::path& name) {
  return name.native().starts_with('.');
}

bool is_pattern(const std::string& text) {
  return text.find_first_of("*?[") != std::string::npos;
}

// What a pattern matches, in the order of bytes and not of the locale.
std::vector<std::string> matches_of(const std::string& pattern) {
  glob_t found = {};
  const int status = glob(pattern.c_str(), GLOB_NOSORT, nullptr, &found);
  std::vector<std::string> paths;
  for (size_t i = 0; status == 0 && i < found.gl_pathc; ++i) paths.emplace_back(found.gl_pathv[i]);
  globfree(&found);
  if (status != 0 && status != GLOB_NOMATCH) {
    host::fail("{}: the pattern cannot be expanded", host::printable(pattern, 300));
  }
  std::ranges::sort(paths);
  return paths;
}

class Collector {
 public:
  Collector(bool recursive, CaptionInputs& inputs) : recursive_(recursive), inputs_(inputs) {}

  void add_named(const std::string& path) {
    const fs::file_status status = status_of(path);
    if (fs::is_directory(status)) return add_folder(path);
    if (fs::exists(status)) return add_file(path);
    const std::vector<std::string> matches =
        is_pattern(path) ? matches_of(path) : std::vector<std::string>();
    if (matches.empty()) {
      host::fail("{}: {}", host::printable(path, 300),
                 is_pattern(path) ? "no file and no folder matches" : "there is no such file");
    }
    for (const std::string& match : matches) {
      if (fs::is_directory(status_of(match))) {
        add_folder(match);
      } else if (has_picture_suffix(match)) {
        add_file(match);
      }
    }
  }

  void add_list(const std::string& list) {
    for (const Line& line : read_lines(list, "paths")) {
      std::string text = line.text;
      if (text.ends_with('\r')) text.pop_back();
      const std::string path = resolve_image(text, list);
      if (fs::is_directory(status_of(path))) {
        add_folder(path);
      } else {
        add_file(path);
      }
    }
  }

  // "2 .gif, 1 .heic"
  std::string left_out() const {
    std::string text;
    for (const auto& [suffix, count] : left_out_) {
      text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, suffix);
    }
    return text;
  }

 private:
  static fs::file_status status_of(const std::string& path) {
    std::error_code missing;  // is no status
    return fs::status(path, missing);
  }

  void add_file(const std::string& path) {
    name_first(folder_of(path));
    add(tidy(path), fs::path(path).filename().string());
  }

  void add_folder(const std::string& folder) {
    name_first(tidy(folder));
    looked_into_.clear();
    if (const std::string error = walk(tidy(folder), ""); !error.empty()) {
      host::fail("{}: cannot be listed: {}", host::printable(folder, 300), error);
    }
  }

  void name_first(const std::string& folder) {
    if (inputs_.folder.empty()) inputs_.folder = folder;
  }

  void add(std::string path, std::string place) {
    if (!seen_.insert(path).second) return;
    inputs_.pictures.push_back({std::move(path), std::move(place)});
  }

  // Adds what is in `folder`, which stands at `place` below the one that was named. Returns why it
  // cannot be listed, if so.
  std::string walk(const std::string& folder, const fs::path& place) {
    struct stat status {};
    if (stat(folder.c_str(), &status) != 0) return std::strerror(errno);
    if (!looked_into_.insert({status.st_dev, status.st_ino}).second) return "";
    std::vector<fs::directory_entry> entries;
    std::error_code error;
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
      if (!is_hidden(entry->path().filename())) entries.push_back(*entry);
    }
    if (error) return error.message();
    std::ranges::sort(entries, {}, [](const auto& entry) { return entry.path().filename(); });
    for (const fs::directory_entry& entry : entries) add_entry(folder, place, entry);
    return "";
  }

  void add_entry(const std::string& folder, const fs::path& place,
                 const fs::directory_entry& entry) {
    const fs::path name = entry.path().filename();
    const std::string path = tidy(fs::path(folder) / name);
    std::error_code ignored;
    const fs::file_status status = entry.status(ignored);
    if (fs::is_directory(status)) {
      if (!recursive_) return;
      const std::string error = walk(path, place / name);
      if (error.empty()) return;
      inputs_.notes.push_back(
          fmt::format("{}: cannot be listed: {}", host::printable(path, 300), error));
      return;
    }
    // A link that leads nowhere is a picture that cannot be read; a pipe or a device is none.
    const bool file = fs::is_regular_file(status) || entry.is_symlink(ignored);
    if (file && has_picture_suffix(path)) return add(path, (place / name).string());
    const std::string suffix = suffix_of(path);
    if (file && std::ranges::find(kOtherSuffixes, suffix) != kOtherSuffixes.end()) {
      ++left_out_[suffix];
    }
  }

  bool recursive_;
  CaptionInputs& inputs_;
  std::unordered_set<std::string> seen_;
  std::set<std::pair<dev_t, ino_t>> looked_into_;
  std::map<std::string, size_t> left_out_;  // files by suffix
};

}  // namespace

bool has_picture_suffix(const std::string& path) {
  return std::ranges::find(kSuffixes, suffix_of(path)) != kSuffixes.end();
}

CaptionInputs find_pictures(const CaptionSources& sources) {
  CaptionInputs inputs;
  Collector collector(sources.recursive, inputs);
  for (const std::string& path : sources.paths) collector.add_named(path);
  for (const std::string& list : sources.lists) collector.add_list(list);
  inputs.left_out = collector.left_out();
  if (inputs.pictures.empty()) {
    host::fail("{}: no pictures there (JPEG, PNG, WebP, BMP, TIFF, PPM, by their suffixes){}{}",
               host::printable(inputs.folder.empty() ? sources.paths.front() : inputs.folder, 300),
               inputs.left_out.empty() ? "" : "; of other formats: " + inputs.left_out,
               sources.recursive ? "" : "; --recursive looks into subfolders as well");
  }
  return inputs;
}

}  // namespace ocelli::app
