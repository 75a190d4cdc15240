// A folder of pictures that the demo model knows, each with a content of its own, and captions of
// them.
#pragma once

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/app/command.h"

namespace ocelli::app {

// The scenes of assets/scenes again and again, as NAME-0.png and so on.
inline std::vector<fs::path> write_photos(const fs::path& folder, int count) {
  fs::create_directories(folder);
  std::vector<fs::path> scenes;
  for (const auto& entry : fs::directory_iterator(source_path("assets/scenes"))) {
    scenes.push_back(entry.path());
  }
  std::ranges::sort(scenes);
  std::vector<fs::path> photos;
  for (int i = 0; i < count; ++i) {
    const fs::path& scene = scenes[static_cast<size_t>(i) % scenes.size()];
    photos.push_back(
        folder / (scene.stem().string() + "-" + std::to_string(i) + scene.extension().string()));
    // What stands behind a picture's end is not looked at.
    write_file(photos.back(), read_file(scene) + std::to_string(i));
  }
  return photos;
}

// A table of JSON Lines without the one thing that no two runs have in common.
inline std::string without_times(const std::string& table) {
  std::istringstream lines(table);
  std::string rest;
  for (std::string line; std::getline(lines, line);) {
    auto record = nlohmann::ordered_json::parse(line);
    EXPECT_EQ(record.erase("milliseconds"), 1U) << line;
    rest += record.dump() + "\n";
  }
  return rest;
}

}  // namespace ocelli::app
