// `caption --heatmap DIR`: where the model looked for the caption of each picture, in a folder of
// maps.
#pragma once

#include <span>
#include <string>

#include "app/caption_inputs.h"
#include "app/heatmap.h"

namespace ocelli::app {

// Leaves the maps of earlier runs, below `directory`, out of the pictures. Throws UsageError when
// maps would lie in a folder, or be in the place of a file, that is to be captioned.
void leave_out_maps(const std::string& directory, const CaptionSources& sources,
                    CaptionInputs& inputs);

// The map of a picture is DIR/PLACE.png, of a word of its caption DIR/PLACE.03-house.png.
class CaptionMaps {
 public:
  // Throws host::Error when two of the pictures would share a map. `pictures` must outlive this.
  CaptionMaps(const HeatmapFiles& files, std::span<const CaptionInput> pictures);

  // Throws host::Error unless DIR can be written to.
  void prepare() const;
  // Whether the picture's map is not there. By any thread.
  bool missing(size_t index) const;
  // Writes the picture's map, on a copy of it of any size, its words' before it: where it is, all
  // are. Throws host::Error when that fails.
  void write(size_t index, const Gaze& gaze, const vision::Image& copy,
             const VisionConfig& config) const;
  // The same for a picture of one content with picture `from`, which has its maps.
  void copy(size_t from, size_t index) const;

 private:
  std::string path_of(size_t index) const;

  HeatmapFiles files_;
  std::span<const CaptionInput> pictures_;
};

}  // namespace ocelli::app
