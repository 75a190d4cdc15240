// What a benchmark found, as JSON for machines and as a table for people.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "app/bench_meter.h"
#include "kernels/cpu/machine_limits.h"

namespace ocelli::app {

struct BenchRow {
  std::string name;
  int context = 0;   // positions in the cache before
  int batch = 1;     // sequences, or pictures
  int tokens = 0;    // that go through the decoder; 0: tokens do not describe the row
  int captions = 0;  // whole ones that are made; 0: the row makes none
  double seconds = 0;
  Work work = {};  // no operations where no bound applies
};

struct BenchReport {
  std::string model;
  std::string weights;
  std::string processor;
  std::string isa;
  std::string kv;
  int threads = 0;
  kernels::MachineLimits limits;
  std::vector<BenchRow> rows;
};

// {"model", "machine": {"cpu", "isa", "threads", "read_gb_s", "int8_tops", "bf16_tflops",
// "f32_tflops"}, "rows": [{"name", "weights", "kv_cache", "context", "batch", "tokens", "seconds",
// "tok_s", "images_per_minute", "bytes", "ops", "fraction", "bound"}]}. A limit that the machine
// does not have is null, and so are what does not apply to a row. "bound" is "read", "int8", "bf16"
// or "f32".
nlohmann::json to_json(const BenchReport& report);

std::string to_table(const BenchReport& report);

}  // namespace ocelli::app
