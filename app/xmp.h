// A picture's description in the XMP sidecar beside it (photo.jpg.xmp), where Immich, digiKam and
// darktable look for it. The picture itself is never opened.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace ocelli::app {

// "a/photo.jpg" → "a/photo.jpg.xmp"
std::string xmp_sidecar(const std::string& picture);

// What dc:description says in the file `sidecar`: in the default language, else in the first there
// is. Nothing when there is no file, or no description with text in it. Throws host::Error when the
// file cannot be read as XMP.
std::optional<std::string> xmp_description(const std::string& sidecar);

// What write_xmp_description() would write: the properties of `sidecar` as they are, if there is
// such a file, with `text` as the description in the default language (x-default); descriptions in
// other languages stay. Bytes of `text` that XML cannot hold become U+FFFD or a space. Throws
// host::Error when the file is there but cannot be read as XMP, or cannot be written again without
// losing something.
std::string xmp_with_description(const std::string& sidecar, std::string_view text);

// Writes that to `sidecar`, whole or not at all; after an error (those above, a full disk) a file
// that was there is as it was.
void write_xmp_description(const std::string& sidecar, std::string_view text);

}  // namespace ocelli::app
