// What running a model takes of the machine's memory, told before anything is loaded.
#pragma once

#include <cstdint>
#include <string>

#include "app/pipeline.h"
#include "host/available_memory.h"

namespace ocelli::app {

// Bytes. What is mapped stands in files: the kernel may drop its pages and read them again. All
// else has to be had.
struct MemoryForecast {
  int64_t mapped = 0;       // weights that are read where their files are mapped
  int64_t weights = 0;      // weights in memory of our own
  int64_t cache = 0;        // keys and values, with every sequence as long as the context
  int64_t activations = 0;  // and logits, and pictures' rows
  int64_t program = 0;      // code, vocabulary, stacks, and whatever else a command asks for
  int sequences = 1;        // at once, which the last three depend on

  int64_t resident() const { return weights + cache + activations + program; }
};

// What running `model` so takes; options.backend.threads may be 0. Reads no tensor.
MemoryForecast forecast_memory(const OpenedModel& model, const PipelineOptions& options);

// The most sequences, from 1 to `most`, with which resident() is at most `bytes`; 1 also where that
// is too many.
int sequences_that_fit(const OpenedModel& model, PipelineOptions options, int64_t bytes, int most);

using host::available_memory;
using host::AvailableMemory;
// The same with no more than `bytes` in all, as --max-memory says.
AvailableMemory limited_to(const AvailableMemory& available, int64_t bytes);

// Throws host::Error with the numbers when the forecast exceeds what is available.
void require_memory(const MemoryForecast& forecast, const AvailableMemory& available);
// What is to be expected of a model that can be run but does not fit: that its file will be read
// again and again, or that memory will be swapped. Empty where all fits.
std::string memory_note(const MemoryForecast& forecast, const AvailableMemory& available);
// The forecast's numbers, for people: "5.31 GB (weights 3.20, keys and values 1.07, …)".
std::string memory_text(const MemoryForecast& forecast);

}  // namespace ocelli::app
