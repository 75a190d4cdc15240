#include "kernels/cpu/machine_limits.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <fstream>

#include "kernels/cpu/isa/limits.h"
#include "kernels/cpu/kernel_table.h"

namespace ocelli::kernels {
namespace {

constexpr int64_t kMostBuffer = int64_t{1} << 30;
constexpr int64_t kUnknownBuffer = int64_t{1} << 28;
constexpr int kWindows = 16;
// A thread that is held up leaves its share to the others.
constexpr int kTasksPerThread = 8;
// Long beside a barrier, short beside a time slice of the system.
constexpr double kPeakTrialSeconds = 5e-4;
// Trials end when so many in a row have found nothing better.
constexpr int kPatience = 2 * kWindows;
constexpr int kMostTrials = 8 * kWindows;

template <typename Function>
double seconds_of(const Function& function) {
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  function();
  return std::max(std::chrono::duration<double>(Clock::now() - begin).count(), 1e-9);
}

// The largest of what trial(0), trial(1), … return. On a busy machine that takes more of them.
template <typename Trial>
double best_of(const Trial& trial) {
  constexpr double kBetter = 1.01;
  double best = 0;
  for (int i = 0, found = 0; i < kMostTrials && i - found <= kPatience; ++i) {
    const double rate = trial(i);
    if (rate > kBetter * best) found = i;
    best = std::max(best, rate);
  }
  return best;
}

double peak_ops_per_second(host::ThreadPool& pool, cpu::PeakLoop loop) {
  // Doubled until a thread alone takes as long as a trial should; this also warms the core up.
  int64_t rounds = 64;
  while (seconds_of([&] { loop(rounds); }) < kPeakTrialSeconds) rounds *= 2;
  rounds = rounds / kTasksPerThread + 1;
  const int tasks = pool.size() * kTasksPerThread;
  return best_of([&](int) {
    std::atomic<int64_t> ops{0};
    const double seconds =
        seconds_of([&] { pool.parallel_for(tasks, [&](int, int) { ops += loop(rounds); }); });
    return static_cast<double>(ops) / seconds;
  });
}

}  // namespace

LimitMeter::LimitMeter(int threads, const std::string& isa, int64_t buffer_bytes)
    : pool_(threads),
      isa_(cpu::select_table(isa).isa),
      window_bytes_(std::max<int64_t>(buffer_bytes / kWindows, cpu::kReadUnit) / cpu::kReadUnit *
                    cpu::kReadUnit),
      buffer_(std::make_unique_for_overwrite<std::byte[]>(window_bytes_ * kWindows)) {
  // Written, as memory that never was is one page of zeros.
  const int tasks = pool_.size() * kWindows;
  const int64_t all = window_bytes_ * kWindows;
  pool_.parallel_for(tasks, [&](int index, int) {
    const int64_t begin = all * index / tasks;
    std::memset(buffer_.get() + begin, 0x5a, all * (index + 1) / tasks - begin);
  });
}

void LimitMeter::measure() {
  const cpu::LimitLoops loops = cpu::limit_loops(isa_);
  const auto raise = [this](std::optional<double>& limit, cpu::PeakLoop loop) {
    if (loop) limit = std::max(limit.value_or(0), peak_ops_per_second(pool_, loop));
  };
  limits_.read_bytes = std::max(limits_.read_bytes, read_bytes_per_second());
  limits_.f32_ops = std::max(limits_.f32_ops, peak_ops_per_second(pool_, loops.f32));
  raise(limits_.int8_ops, loops.int8);
  raise(limits_.bf16_ops, loops.bf16);
  // It can be widened.
  if (loops.bf16) limits_.bf16_ops = std::max(*limits_.bf16_ops, limits_.f32_ops);
}

double LimitMeter::read_bytes_per_second() {
  const int64_t units = window_bytes_ / cpu::kReadUnit;
  const int tasks = static_cast<int>(std::min<int64_t>(units, pool_.size() * kTasksPerThread));
  std::atomic<uint64_t> sum{0};  // so that the reading has a purpose
  return best_of([&](int i) {
    const std::byte* window = buffer_.get() + i % kWindows * window_bytes_;
    const double seconds = seconds_of([&] {
      pool_.parallel_for(tasks, [&](int index, int) {
        const int64_t begin = units * index / tasks;
        const int64_t end = units * (index + 1) / tasks;
        sum += cpu::sum_bytes(window + begin * cpu::kReadUnit, (end - begin) * cpu::kReadUnit);
      });
    });
    return static_cast<double>(window_bytes_) / seconds;
  });
}

int64_t LimitMeter::default_buffer_bytes() {
  const int64_t cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
  return cache > 0 ? std::min(4 * cache, kMostBuffer) : kUnknownBuffer;
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

}  // namespace ocelli::kernels
