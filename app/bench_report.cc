#include "app/bench_report.h"

#include <fmt/format.h>

namespace ocelli::app {

using nlohmann::json;

namespace {

// The least time the machine needs for some work, and what takes it.
struct Bound {
  const char* name = nullptr;
  double seconds = 0;
};

// Operations a second; what the machine has no instructions for is done in fp32.
double peak_of(Arithmetic arithmetic, const kernels::MachineLimits& limits) {
  if (arithmetic == Arithmetic::kInt8) return limits.int8_ops.value_or(limits.f32_ops);
  if (arithmetic == Arithmetic::kBf16) return limits.bf16_ops.value_or(limits.f32_ops);
  return limits.f32_ops;
}

Bound compute_bound(const Work& work, const kernels::MachineLimits& limits) {
  Bound bound = {"f32", 0};
  if (work.arithmetic() == Arithmetic::kInt8 && limits.int8_ops) bound.name = "int8";
  if (work.arithmetic() == Arithmetic::kBf16 && limits.bf16_ops) bound.name = "bf16";
  for (const Arithmetic arithmetic : {Arithmetic::kF32, Arithmetic::kBf16, Arithmetic::kInt8}) {
    const auto ops = static_cast<double>(work.ops_in[static_cast<size_t>(arithmetic)]);
    bound.seconds += ops / peak_of(arithmetic, limits);
  }
  return bound;
}

Bound bound_of(const Work& work, const kernels::MachineLimits& limits) {
  const Bound compute = compute_bound(work, limits);
  const Bound read = {"read", static_cast<double>(work.bytes) / limits.read_bytes};
  return read.seconds > compute.seconds ? read : compute;
}

json optional_json(const std::optional<double>& ops_per_second) {
  return ops_per_second ? json(*ops_per_second / 1e12) : json();
}

double images_per_minute(const BenchRow& row) {
  return 60 * row.captions / row.seconds;
}

std::string duration_text(double seconds) {
  if (seconds >= 1) return fmt::format("{:.2f} s", seconds);
  if (seconds >= 1e-3) return fmt::format("{:.2f} ms", seconds * 1e3);
  return fmt::format("{:.1f} us", seconds * 1e6);
}

std::string amount_text(double amount) {
  if (amount >= 1e12) return fmt::format("{:.2f} T", amount / 1e12);
  if (amount >= 1e9) return fmt::format("{:.2f} G", amount / 1e9);
  return fmt::format("{:.2f} M", amount / 1e6);
}

std::string limits_text(const kernels::MachineLimits& limits) {
  std::string text = fmt::format("reads {:.1f} GB/s", limits.read_bytes / 1e9);
  if (limits.int8_ops) text += fmt::format(", int8 {:.2f} TOPS", *limits.int8_ops / 1e12);
  if (limits.bf16_ops) text += fmt::format(", bf16 {:.2f} TFLOPS", *limits.bf16_ops / 1e12);
  return text + fmt::format(", f32 {:.3f} TFLOPS", limits.f32_ops / 1e12);
}

// "captions one after another: 9.8 images/minute\n…"; empty where none are made.
std::string captions_text(const std::vector<BenchRow>& rows) {
  std::string text;
  const BenchRow* alone = nullptr;
  for (const BenchRow& row : rows) {
    if (row.captions == 0) continue;
    const double rate = images_per_minute(row);
    if (row.batch == 1) alone = &row;
    text += row.batch == 1 ? "captions one after another"
                           : fmt::format("captions {} at a time", row.batch);
    text += fmt::format(": {:.1f} images/minute", rate);
    if (alone && alone != &row)
      text += fmt::format(", {:.2f} times", rate / images_per_minute(*alone));
    text += '\n';
  }
  return text.empty() ? "" : "\n" + text;
}

constexpr const char* kExplanation =
    "fraction: the least time this machine needs, over the time taken. It needs to read the bytes\n"
    "(weights, scales, cached keys and values) at its read bandwidth, and to do the operations "
    "(two\n"
    "a multiply-add), each at the peak of its arithmetic: products in the weights', a prompt's or "
    "a\n"
    "picture's attention in bf16 where weights are quantised, other attention in f32. `of` names\n"
    "what takes longer: reading, or the arithmetic of most operations.\n"
    "Bandwidth is memory's: weights that fit the cache may be read faster.\n";

}  // namespace

json to_json(const BenchReport& report) {
  json rows = json::array();
  for (const BenchRow& row : report.rows) {
    json object = {{"name", row.name},
                   {"weights", report.weights},
                   {"kv_cache", report.kv},
                   {"context", row.context},
                   {"batch", row.batch},
                   {"tokens", nullptr},
                   {"seconds", row.seconds},
                   {"tok_s", nullptr},
                   {"bytes", row.work.bytes},
                   {"ops", row.work.ops},
                   {"fraction", nullptr},
                   {"bound", nullptr},
                   {"images_per_minute", nullptr}};
    if (row.captions > 0) object["images_per_minute"] = images_per_minute(row);
    if (row.tokens > 0) {
      object["tokens"] = row.tokens;
      object["tok_s"] = row.tokens / row.seconds;
    }
    if (row.work.ops > 0) {
      const Bound bound = bound_of(row.work, report.limits);
      object["fraction"] = bound.seconds / row.seconds;
      object["bound"] = bound.name;
    }
    rows.push_back(std::move(object));
  }
  const kernels::MachineLimits& limits = report.limits;
  return {{"model", report.model},
          {"machine",
           {{"cpu", report.processor},
            {"isa", report.isa},
            {"threads", report.threads},
            {"read_gb_s", limits.read_bytes / 1e9},
            {"int8_tops", optional_json(limits.int8_ops)},
            {"bf16_tflops", optional_json(limits.bf16_ops)},
            {"f32_tflops", limits.f32_ops / 1e12}}},
          {"rows", std::move(rows)}};
}

std::string to_table(const BenchReport& report) {
  std::string text = fmt::format("{}, {} weights, {} keys and values\n{}, {}, threads: {}\n{}\n\n",
                                 report.model, report.weights, report.kv, report.processor,
                                 report.isa, report.threads, limits_text(report.limits));
  text += fmt::format("{:<12}{:>8}{:>7}{:>12}{:>11}{:>12}{:>12}{:>10}  {}\n", "", "context",
                      "batch", "time", "tokens/s", "bytes", "operations", "fraction", "of");
  for (const BenchRow& row : report.rows) {
    const bool bounded = row.work.ops > 0;
    const Bound bound = bounded ? bound_of(row.work, report.limits) : Bound{"", 0};
    text += fmt::format(
        "{:<12}{:>8}{:>7}{:>12}{:>11}{:>12}{:>12}{:>10}  {}\n", row.name, row.context, row.batch,
        duration_text(row.seconds),
        row.tokens > 0 ? fmt::format("{:.1f}", row.tokens / row.seconds) : "",
        row.work.bytes > 0 ? amount_text(static_cast<double>(row.work.bytes)) + "B" : "",
        bounded ? amount_text(static_cast<double>(row.work.ops)) : "",
        bounded ? fmt::format("{:.2f}", bound.seconds / row.seconds) : "", bound.name);
  }
  return text + captions_text(report.rows) + "\n" + kExplanation;
}

}  // namespace ocelli::app
