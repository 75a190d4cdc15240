#include "app/caption_maps.h"

#include <algorithm>
#include <filesystem>
#include <unordered_map>

#include "app/caption_outputs.h"
#include "app/terminal.h"
#include "host/error.h"
#include "host/mapped_file.h"
#include "host/output_file.h"

namespace ocelli::app {
namespace {

namespace fs = std::filesystem;

// Without "." and "..", and without a slash at its end.
fs::path whole(const std::string& path) {
  const fs::path normal = fs::absolute(path).lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

bool is_below(const fs::path& path, const fs::path& folder) {
  const fs::path relative = path.lexically_relative(folder);
  return !relative.empty() && *relative.begin() != "..";
}

void make_folder_of(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  if (!error) return;
  host::fail("{}: cannot be made: {}", host::printable(path.parent_path().string(), 300),
             error.message());
}

// A map appears whole or not at all.
void copy_map(const fs::path& from, const fs::path& to) {
  const host::MappedFile map(from);
  host::OutputFile file(to.string());
  file.write({reinterpret_cast<const char*>(map.bytes().data()), map.bytes().size()});
  file.commit();
}

}  // namespace

void leave_out_maps(const std::string& directory, const CaptionSources& sources,
                    CaptionInputs& inputs) {
  const fs::path maps = whole(directory);
  for (const std::string& source : sources.paths) {
    if (!is_below(whole(source), maps)) continue;
    throw UsageError(fmt::format("--heatmap {}: the maps would lie among the pictures of {}",
                                 directory, source));
  }
  std::erase_if(inputs.pictures,
                [&](const CaptionInput& picture) { return is_below(whole(picture.path), maps); });
}

CaptionMaps::CaptionMaps(const HeatmapFiles& files, std::span<const CaptionInput> pictures)
    : files_(files), pictures_(pictures) {
  std::unordered_map<std::string, size_t> owners;
  for (size_t i = 0; i < pictures.size(); ++i) {
    const auto [owner, fresh] = owners.emplace(path_of(i), i);
    if (fresh) continue;
    host::fail("{}: would be the map of {} and of {}: caption their folders one at a time",
               host::printable(owner->first, 300),
               host::printable(pictures[owner->second].path, 300),
               host::printable(pictures[i].path, 300));
  }
}

std::string CaptionMaps::path_of(size_t index) const {
  return (files_.path / (pictures_[index].place + ".png")).string();
}

void CaptionMaps::prepare() const {
  if (!pictures_.empty()) require_writable(path_of(0));
}

bool CaptionMaps::missing(size_t index) const {
  std::error_code unknown;
  return !fs::exists(path_of(index), unknown);
}

void CaptionMaps::write(size_t index, const Gaze& gaze, const vision::Image& copy,
                        const VisionConfig& config) const {
  const fs::path path = path_of(index);
  make_folder_of(path);
  write_heatmaps(gaze, std::span(&copy, 1), config, {path, files_.words});
}

void CaptionMaps::copy(size_t from, size_t index) const {
  const fs::path source = path_of(from);
  const fs::path target = path_of(index);
  make_folder_of(target);
  if (files_.words) {
    const std::string stem = source.stem().string() + ".";  // and the word's number
    for (const auto& entry : fs::directory_iterator(source.parent_path())) {
      const std::string name = entry.path().filename().string();
      if (!name.starts_with(stem) || !name.ends_with(".png")) continue;
      if (name[stem.size()] < '0' || name[stem.size()] > '9') continue;
      copy_map(entry.path(),
               target.parent_path() / (target.stem().string() + "." + name.substr(stem.size())));
    }
  }
  copy_map(source, target);
}

}  // namespace ocelli::app
