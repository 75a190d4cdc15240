// Which pictures a run is about: files, folders, patterns and lists become one list in an order
// that depends on their names alone.
#pragma once

#include <string>
#include <vector>

namespace ocelli::app {

// One picture.
struct CaptionInput {
  std::string path;   // as it was named, without "./" and "//"
  std::string place;  // below the folder that was named; of a file named itself, its name

  bool operator==(const CaptionInput&) const = default;
};

struct CaptionSources {
  std::vector<std::string> paths;  // files, folders, and patterns where there is no such file
  std::vector<std::string> lists;  // files with a path a line; "-": standard input
  bool recursive = false;          // look into subfolders as well
};

struct CaptionInputs {
  std::vector<CaptionInput> pictures;
  std::string folder;              // that the first of the sources names or lies in
  std::vector<std::string> notes;  // subfolders that could not be looked into, with the reason
  std::string left_out;  // what of folders is a picture of a format that is not read: "2 .heic"
};

// Whether the name ends as those of the formats that are read do (".jpg", ".PNG").
bool has_picture_suffix(const std::string& path);

// Everything that `sources` name, in their order, each path once. A folder gives its files with a
// picture's suffix in the order of their names' bytes, hidden ones left out; a pattern, as the
// shell knows them, gives files and folders likewise; a file that is named counts whatever its name
// is. Lines of a list are files or folders relative to the list's folder; one that is missing stays
// in, to be reported as a picture that cannot be read. Each folder is looked into once, so links
// that form a loop do no harm. Throws host::Error when a path does not exist, when a folder or list
// cannot be read, or when there is no picture at all.
CaptionInputs find_pictures(const CaptionSources& sources);

}  // namespace ocelli::app
