// Pictures to caption, and what was written of them.
#pragma once

#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "app/caption_record.h"
#include "tests/app/command.h"
#include "vision/image.h"

namespace ocelli::app {

// A small scene of circles and squares, another one for every seed.
inline vision::Image scene(uint32_t seed) {
  constexpr int kSize = 64;
  constexpr uint8_t kColours[][3] = {{214, 32, 36},  {250, 222, 40}, {36, 150, 52},
                                     {36, 84, 214},  {26, 26, 28},   {250, 250, 250},
                                     {128, 40, 168}, {250, 136, 16}, {122, 72, 34}};
  std::minstd_rand random(seed);
  vision::Image image{kSize, kSize, {}};
  for (int i = 0; i < kSize * kSize; ++i) {
    const auto shade = static_cast<uint8_t>(180 + seed % 40);
    image.rgb.insert(image.rgb.end(), {shade, 206, 214});
  }
  for (int things = 1 + static_cast<int>(random() % 3); things > 0; --things) {
    const auto& colour = kColours[random() % std::size(kColours)];
    const bool round = random() % 2 == 0;
    const int radius = 6 + static_cast<int>(random() % 6);
    const int x0 = radius + static_cast<int>(random() % (kSize - 2 * radius));
    const int y0 = radius + static_cast<int>(random() % (kSize - 2 * radius));
    for (int y = y0 - radius; y < y0 + radius; ++y) {
      for (int x = x0 - radius; x < x0 + radius; ++x) {
        const int dx = x - x0;
        const int dy = y - y0;
        if (round && dx * dx + dy * dy > radius * radius) continue;
        std::copy(colour, colour + 3, image.rgb.begin() + 3 * (int64_t{y} * kSize + x));
      }
    }
  }
  return image;
}

inline void draw(const fs::path& path, uint32_t seed) {
  fs::create_directories(path.parent_path());
  vision::write_png(scene(seed), path.string());
}

// 000.png … in `folder`.
inline void draw_many(const fs::path& folder, int count) {
  for (int i = 0; i < count; ++i) {
    draw(folder / fmt::format("{:03}.png", i), static_cast<uint32_t>(i + 1));
  }
}

// The objects of JSON Lines.
inline std::vector<nlohmann::json> parse_lines(const std::string& text) {
  std::vector<nlohmann::json> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}
inline std::vector<nlohmann::json> records_in(const fs::path& path) {
  return parse_lines(read_file(path));
}

// A record without what no two runs have in common.
inline nlohmann::json timeless(nlohmann::json record) {
  record.erase("milliseconds");
  return record;
}

// Every file below `folder` with its bytes; of records in JSON Lines what is timeless. Journals,
// whose order is that in which captions were done, are left out.
inline std::map<std::string, std::string> contents_of(const fs::path& folder) {
  std::map<std::string, std::string> contents;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file() || entry.path().extension() == ".journal") continue;
    std::string& text = contents[entry.path().lexically_relative(folder).string()];
    text = read_file(entry.path());
    if (entry.path().extension() != ".jsonl") continue;
    std::string lines;
    for (const nlohmann::json& record : parse_lines(text)) lines += timeless(record).dump() + "\n";
    text = lines;
  }
  return contents;
}

}  // namespace ocelli::app
