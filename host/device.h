// A machine with memory of its own, in banks, and kernels that are launched by name: the shape of
// XRT's native API.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>

namespace ocelli::host {

// Memory of a device, named by its device. A released id is never given out again.
struct BufferId {
  uint64_t value = 0;
  bool operator==(const BufferId&) const = default;
};

// A kernel's argument: memory from a byte offset on, or a number.
struct BufferArgument {
  BufferId buffer;
  int64_t offset = 0;
};
using Argument = std::variant<BufferArgument, int64_t, double>;

// Launches are queued and run in order, at the latest when wait() returns. write() and read() act
// on the memory at once and do NOT wait: what a queued launch will read must not be overwritten,
// and what it will write is not there yet. Every member but the destructor throws Error when the
// device fails or the request is impossible.
class Device {
 public:
  virtual ~Device() = default;

  virtual std::string name() const = 0;
  virtual int banks() const = 0;
  virtual int64_t bank_bytes() const = 0;
  virtual int64_t free_bytes(int bank) const = 0;

  // `bytes` of memory in `bank`, with undefined contents.
  virtual BufferId allocate(int64_t bytes, int bank) = 0;
  virtual void release(BufferId buffer) noexcept = 0;
  virtual void write(BufferId buffer, int64_t offset, std::span<const std::byte> source) = 0;
  virtual void read(BufferId buffer, int64_t offset, std::span<std::byte> target) = 0;
  virtual void launch(std::string_view kernel, std::span<const Argument> arguments) = 0;
  // Returns when every launch has run; a launch that failed is reported here.
  virtual void wait() = 0;
};

}  // namespace ocelli::host
