// Pictures of where a model looked: the weights of a picture's patches laid over it in colours.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "app/gaze.h"
#include "app/model.h"
#include "vision/image.h"

namespace ocelli::app {

// The picture, upright as it was decoded, with the weights of its rows over it: grey and dim where
// the model did not look, from violet over red to yellow where it did, yellow being a weight of
// `largest`. The weights stand where their patches lie, be the picture stretched to the model's
// square or padded, and are bicubically interpolated between the patches' centres. A picture with a
// side of more than 1,280 pixels is scaled down to that. `config` is of the model that looked.
vision::Image draw_heatmap(const vision::Image& picture, const RowWeights& weights, float largest,
                           const VisionConfig& config);

// The picture scaled down as draw_heatmap() does, which then draws the same on it.
vision::Image heatmap_ground(const vision::Image& picture);

// Where the maps of an answer go: `path` itself, for several pictures path-1.png, path-2.png, ….
// All maps of one word have one scale. Those of words stand beside them: path.03-house.png is the
// third word's, and are written first.
struct HeatmapFiles {
  std::filesystem::path path;
  bool words = false;
};

// Writes the maps of an answer about `pictures`; returns the files, in the order in which they were
// written. Throws host::Error when one cannot be.
std::vector<std::string> write_heatmaps(const Gaze& gaze, std::span<const vision::Image> pictures,
                                        const VisionConfig& config, const HeatmapFiles& files);

// path, with "-INDEX" before its suffix where there are several.
std::filesystem::path numbered_path(const std::filesystem::path& path, size_t index, size_t count);

}  // namespace ocelli::app
