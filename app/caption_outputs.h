// Where captions go, as the command line says it: sidecars beside the pictures and tables of all of
// them.
#pragma once

#include <string>
#include <vector>

#include "app/caption_inputs.h"

namespace ocelli::app {

enum class CaptionFormat { kJsonl, kCsv, kImageFolder, kTxt, kCaption, kXmp };

// What happens to a caption that stands in a sidecar already.
enum class IfExists { kSkip, kOverwrite, kAppend, kPrepend };

// In the order of the enumerations: "jsonl", "csv", "imagefolder", …; "skip", "overwrite", …
const std::vector<std::string>& caption_format_names();
const std::vector<std::string>& if_exists_names();

struct CaptionOutputOptions {
  std::string file;                    // -o: the table; "-": standard output
  std::string directory;               // --out-dir
  std::vector<CaptionFormat> formats;  // none: a table for -o, else text sidecars
  IfExists if_exists = IfExists::kSkip;
  std::string extension;         // of text sidecars; empty: ".txt"
  std::string prefix;            // before every caption that is written
  std::string suffix;            // and behind it
  std::string separator = ", ";  // between what stood in a sidecar and what is added to it
};

// The options with what they leave open decided. Throws UsageError when they contradict one another
// or would write over pictures.
CaptionOutputOptions completed(CaptionOutputOptions options);

bool is_table(CaptionFormat format);

// Whether what is written to `path` goes through it: "-" (standard output), a device, a pipe.
bool is_stream(const std::string& path);

// The caption with prefix and suffix.
std::string decorated(const std::string& caption, const CaptionOutputOptions& options);

// Where the journal of such a run belongs: beside the table; else in --out-dir or the first folder.
// Empty where the only output is standard output or a device.
std::string default_journal(const CaptionOutputOptions& options, const CaptionInputs& inputs);

// Throws host::Error unless a file can be made at `path`, and makes the folders above it.
void require_writable(const std::string& path);

}  // namespace ocelli::app
