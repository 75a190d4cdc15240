#include "app/heatmap.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "host/error.h"
#include "host/utf8.h"
#include "vision/resize.h"

namespace ocelli::app {

using vision::Image;

namespace {

constexpr int kLongestSide = 1280;
constexpr int kColourSteps = 1024;
// Less than 1, so that what was looked at a little can still be seen.
constexpr float kGamma = 0.7F;

using Colour = std::array<float, 3>;  // sRGB, 0…1

float encode_srgb(float linear) {
  const float value = std::clamp(linear, 0.0F, 1.0F);
  return value <= 0.0031308F ? 12.92F * value : 1.055F * std::pow(value, 1 / 2.4F) - 0.055F;
}

// Oklab's polar form to sRGB; source: B. Ottosson, "A perceptual color space for image processing".
// What the screen cannot show is clipped.
Colour oklch(float lightness, float chroma, float degrees) {
  const float angle = degrees * std::numbers::pi_v<float> / 180;
  const float a = chroma * std::cos(angle);
  const float b = chroma * std::sin(angle);
  const auto cube = [](float x) { return x * x * x; };
  const float l = cube(lightness + 0.3963377774F * a + 0.2158037573F * b);
  const float m = cube(lightness - 0.1055613458F * a - 0.0638541728F * b);
  const float s = cube(lightness - 0.0894841775F * a - 1.2914855480F * b);
  return {encode_srgb(4.0767416621F * l - 3.3077115913F * m + 0.2309699292F * s),
          encode_srgb(-1.2684380046F * l + 2.6097574011F * m - 0.3413193965F * s),
          encode_srgb(-0.0041960863F * l - 0.7034186147F * m + 1.7076147010F * s)};
}

// 0…1 to a colour that grows lighter evenly, from violet over red to yellow, so that it reads
// without colours as well.
Colour heat_colour(float heat) {
  const float chroma = 0.12F + 0.08F * std::sin(std::numbers::pi_v<float> * heat);
  return oklch(0.35F + 0.55F * heat, chroma, 300 + 165 * heat);
}

// heat_colour() in steps that nobody sees.
const std::vector<Colour>& heat_colours() {
  static const std::vector<Colour> colours = [] {
    std::vector<Colour> made;
    for (int i = 0; i <= kColourSteps; ++i) {
      made.push_back(heat_colour(static_cast<float>(i) / kColourSteps));
    }
    return made;
  }();
  return colours;
}

// The four patches of an axis that a pixel lies between, and their shares.
struct Taps {
  std::array<int, 4> patch;
  std::array<float, 4> share;
};

// Keys' cubic with a = -0.5, beyond the ends the last patch.
Taps taps_at(float position, int patches) {
  const float floor = std::floor(position);
  const float t = position - floor;
  Taps taps{};
  for (int i = 0; i < 4; ++i) {
    taps.patch[i] = std::clamp(static_cast<int>(floor) + i - 1, 0, patches - 1);
  }
  taps.share = {((-0.5F * t + 1) * t - 0.5F) * t, (1.5F * t - 2.5F) * t * t + 1,
                ((-1.5F * t + 2) * t + 0.5F) * t, (0.5F * t - 0.5F) * t * t};
  return taps;
}

// For each of an axis's pixels. The axis has `size` of the `square` pixels that became the model's
// image_size, in their middle.
std::vector<Taps> axis_taps(int size, int square, const vision::SiglipConfig& config) {
  const int before = (square - size) / 2;
  const float patches_a_pixel = static_cast<float>(config.image_size) /
                                static_cast<float>(config.patch_size) / static_cast<float>(square);
  std::vector<Taps> all;
  for (int i = 0; i < size; ++i) {
    const float centre = (static_cast<float>(before + i) + 0.5F) * patches_a_pixel;
    all.push_back(taps_at(centre - 0.5F, config.patches_per_side()));
  }
  return all;
}

// Paints one row of the picture; `heat` has a value a column.
void paint_row(std::span<const float> heat, std::span<uint8_t> rgb) {
  const std::vector<Colour>& colours = heat_colours();
  for (size_t x = 0; x < heat.size(); ++x) {
    const float h = std::clamp(heat[x], 0.0F, 1.0F);
    const Colour& colour = colours[static_cast<size_t>(h * kColourSteps + 0.5F)];
    uint8_t* pixel = rgb.data() + x * 3;
    const float grey = 0.299F * pixel[0] + 0.587F * pixel[1] + 0.114F * pixel[2];
    const float opacity = 0.75F * std::sqrt(h);
    for (size_t c = 0; c < 3; ++c) {
      const float dim = 0.7F * (0.6F * grey + 0.4F * pixel[c]);
      pixel[c] = static_cast<uint8_t>(dim + opacity * (255 * colour[c] - dim) + 0.5F);
    }
  }
}

// A word as part of a file's name: no more of it than names are long, and no slash.
std::string file_name_of(const std::string& word) {
  constexpr size_t kMost = 40;
  std::string name;
  for (std::string_view rest = word; !rest.empty();) {
    const size_t length = std::max(size_t{1}, host::utf8_length(rest));
    if (name.size() + length > kMost) break;
    name += host::utf8_length(rest) > 0 ? rest.substr(0, length) : "_";
    rest.remove_prefix(length);
  }
  return name;
}

}  // namespace

Image heatmap_ground(const Image& picture) {
  const int longer = std::max(picture.width, picture.height);
  if (longer <= kLongestSide) return picture;
  const auto scaled = [&](int size) {
    return std::max(1, static_cast<int>(std::lround(double{1} * size * kLongestSide / longer)));
  };
  return vision::resize_bicubic(picture, scaled(picture.width), scaled(picture.height));
}

Image draw_heatmap(const Image& picture, const RowWeights& weights, float largest,
                   const VisionConfig& config) {
  const vision::SiglipConfig& siglip = config.siglip;
  OCELLI_CHECK(static_cast<int>(weights.size()) == config.image_rows(), "{} weights for {} rows",
               weights.size(), config.image_rows());
  const int side = siglip.patches_per_side();
  // The first patches may not reach the decoder.
  std::vector<float> grid(static_cast<size_t>(siglip.patches()));
  if (largest > 0) {
    std::ranges::transform(weights, grid.begin() + config.first_row,
                           [&](float weight) { return std::pow(weight / largest, kGamma); });
  }

  Image image = heatmap_ground(picture);
  const bool padded = config.aspect == AspectRatio::kPad;
  const int longer = std::max(image.width, image.height);
  const auto columns = axis_taps(image.width, padded ? longer : image.width, siglip);
  const auto rows = axis_taps(image.height, padded ? longer : image.height, siglip);
  const auto width = static_cast<size_t>(image.width);
  std::vector<float> wide(static_cast<size_t>(side) * width);  // the grid's rows, interpolated
  for (size_t i = 0; i < wide.size(); ++i) {
    const Taps& taps = columns[i % width];
    const float* row = grid.data() + i / width * static_cast<size_t>(side);
    for (size_t tap = 0; tap < 4; ++tap) wide[i] += taps.share[tap] * row[taps.patch[tap]];
  }
  std::vector<float> heat(width);
  for (size_t y = 0; y < rows.size(); ++y) {
    std::ranges::fill(heat, 0.0F);
    for (size_t tap = 0; tap < 4; ++tap) {
      const float* row = wide.data() + static_cast<size_t>(rows[y].patch[tap]) * width;
      for (size_t x = 0; x < width; ++x) heat[x] += rows[y].share[tap] * row[x];
    }
    paint_row(heat, std::span(image.rgb).subspan(y * width * 3, width * 3));
  }
  return image;
}

std::filesystem::path numbered_path(const std::filesystem::path& path, size_t index, size_t count) {
  if (count <= 1) return path;
  std::filesystem::path numbered = path;
  return numbered.replace_filename(
      fmt::format("{}-{}{}", path.stem().string(), index, path.extension().string()));
}

std::vector<std::string> write_heatmaps(const Gaze& gaze, std::span<const Image> pictures,
                                        const VisionConfig& config, const HeatmapFiles& files) {
  std::vector<std::string> written;
  const auto write = [&](size_t picture, const std::vector<RowWeights>& all,
                         const std::filesystem::path& path) {
    float largest = 0;
    for (const RowWeights& weights : all) {
      largest = std::max(largest, *std::ranges::max_element(weights));
    }
    const Image map = draw_heatmap(pictures[picture], all[picture], largest, config);
    vision::write_png(map, path.string());
    written.push_back(path.string());
  };
  for (size_t i = 0; i < pictures.size(); ++i) {
    const std::filesystem::path path = numbered_path(files.path, i + 1, pictures.size());
    for (size_t w = 0; files.words && w < gaze.words.size(); ++w) {
      std::filesystem::path beside = path;
      beside.replace_filename(fmt::format("{}.{:02}-{}{}", path.stem().string(), w + 1,
                                          file_name_of(gaze.words[w].word),
                                          path.extension().string()));
      write(i, gaze.words[w].pictures, beside);
    }
    write(i, gaze.answer, path);
  }
  return written;
}

}  // namespace ocelli::app
