// What this machine can do at most, measured: how fast it reads memory, and how fast it multiplies
// and adds in each arithmetic.
//
// Every figure is the best of many short trials with all threads at once, so that other programs
// make it smaller only if they never pause.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "host/thread_pool.h"

namespace ocelli::kernels {

// Per second, all threads together. A multiply-add is two operations.
struct MachineLimits {
  double read_bytes = 0;
  std::optional<double> int8_ops;  // none: no instruction for it is used
  std::optional<double> bf16_ops;
  double f32_ops = 0;
};

class LimitMeter {
 public:
  // For `threads` threads with what the cpu backend's `isa` computes with (empty: the fastest).
  // Read bandwidth is measured over `buffer_bytes` of memory, which stay allocated. Throws
  // host::Error when there are not as many threads, or no such isa.
  LimitMeter(int threads, const std::string& isa, int64_t buffer_bytes);

  // Takes a few tenths of a second. What earlier calls found stays where it was larger.
  void measure();

  const MachineLimits& limits() const { return limits_; }
  const std::string& isa() const { return isa_; }
  int threads() const { return pool_.size(); }

  // Four times the last cache, at most 1 GB: what is read has left the cache when its turn comes
  // again.
  static int64_t default_buffer_bytes();

 private:
  double read_bytes_per_second();

  host::ThreadPool pool_;
  std::string isa_;
  int64_t window_bytes_;  // read in one trial: a sixteenth of the buffer
  std::unique_ptr<std::byte[]> buffer_;
  MachineLimits limits_;
};

// The processor as the system names it, or "unknown".
std::string processor_name();

}  // namespace ocelli::kernels
