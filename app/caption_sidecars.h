// Captions in files of their own beside the pictures: text, or XMP.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "app/caption_outputs.h"

namespace ocelli::app {

class CaptionSidecars {
 public:
  // `options` completed. Throws host::Error when two of the pictures would share a sidecar.
  CaptionSidecars(const CaptionOutputOptions& options, std::span<const CaptionInput> pictures);

  bool any() const { return !formats_.empty(); }
  // The sidecars of a picture, one a format.
  std::vector<std::string> paths(const CaptionInput& picture) const;
  // Whether a sidecar of the picture would be written, whatever its caption.
  bool wanted(const CaptionInput& picture) const;

  // Makes the folders that the sidecars of `pictures` need and removes what a killed run left in
  // them. Throws host::Error when one cannot be written to.
  void prepare(std::span<const CaptionInput> pictures) const;

  // Writes a picture's caption, without prefix and suffix, to its sidecars as --if-exists says. A
  // caption that stands there already is not added again. What stands there and cannot be read (a
  // broken XMP) is left alone and becomes a line of notes(). Throws host::Error when a file cannot
  // be written.
  void write(const CaptionInput& picture, const std::string& caption);
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  std::string path_of(const CaptionInput& picture, CaptionFormat format) const;
  bool taken(const std::string& path, CaptionFormat format) const;
  void write_one(const std::string& path, CaptionFormat format, const std::string& caption);

  CaptionOutputOptions options_;
  std::vector<CaptionFormat> formats_;  // those that are sidecars
  std::vector<std::string> notes_;
};

}  // namespace ocelli::app
