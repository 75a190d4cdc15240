// `ocelli caption` behind its command line: plans what is to be written, runs, writes it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "app/caption_inputs.h"
#include "app/caption_outputs.h"
#include "app/heatmap.h"
#include "app/options.h"

namespace ocelli::app {

struct CaptionOptions {
  ModelOptions model;
  SamplingOptions sampling;
  InputOptions input;
  CaptionSources sources;
  CaptionOutputOptions outputs;
  std::string prompt = "Describe the picture.";
  std::string begin_with;
  std::vector<std::string> forbidden;  // lists, as --forbid takes them
  double min_confidence = 0.2;
  std::optional<int> batch;            // none: what the memory takes, at most kUsualBatch
  std::optional<uint64_t> max_memory;  // bytes
  std::string journal;                 // empty: beside the outputs
  std::string shard;                   // as parse_shard() reads it; empty: the run is not split
  HeatmapFiles heatmap;                // a folder; an empty path: none
  std::string report;                  // a page to look at; empty: none
  bool retry_errors = false;
  bool dry_run = false;
  double log_seconds = 60;  // between lines of progress where there is no terminal; 0: none

  static constexpr int kUsualBatch = 16;
  static constexpr int kUsualTokens = 256;
};

// Captions everything the options name. Throws UsageError, host::Error, and Exit: with kRetryExit
// after a signal, when what was done is saved; with 1, the reasons having been shown, when every
// picture failed.
void run_caption(CaptionOptions& options);

}  // namespace ocelli::app
