// `caption --report`: one page of HTML with every picture, its caption and how sure the model was,
// to be looked through, searched and filtered. It needs nothing but itself.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>

#include "app/caption_inputs.h"
#include "app/caption_record.h"
#include "vision/image.h"

namespace ocelli::app {

// What the page says of the run, and what its thumbnails are made with.
struct ReportOptions {
  std::string folder;  // of the pictures, as it was named: the title
  std::string prompt;
  vision::DecodeOptions decode;
  int threads = 1;
  std::string note;  // below the rest; empty: none
};

// Writes the page for the pictures that have a record, in their order; record_of(i) is what became
// of picture i, the same whenever it is asked. It appears whole or not at all, and memory does not
// depend on how many pictures there are. Thumbnails are made of the files as they are now; of one
// that was changed since, or after Ctrl-C, there is none. Throws host::Error when the page cannot
// be written.
void write_report(const std::string& path, const ReportOptions& options,
                  std::span<const CaptionInput> pictures,
                  const std::function<std::optional<CaptionRecord>(size_t)>& record_of);

}  // namespace ocelli::app
