// How long each step of an answer about a picture takes, on real pictures.
#pragma once

#include <string>

#include "app/pipeline.h"

namespace ocelli::app {

// Asks about every picture in `folder` and prints the median of each step: decode, resize, encode,
// connector, prefill, generate (a token). As JSON: {"model", "images", "rows": [{"name",
// "seconds"}]}. What cannot be read as a picture is passed over, with a note unless `quiet`. Throws
// host::Error when nothing is left.
void bench_images(Pipeline& pipeline, const std::string& folder, bool as_json, bool quiet);

}  // namespace ocelli::app
