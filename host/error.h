// The two ways things go wrong: the world's faults throw Error, our own abort through OCELLI_CHECK.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace ocelli::host {

// A fault of the world (a file, a device, a request). what() is one line that says what is wrong,
// where, and what to do; it is caught once per command or request.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws an Error with a formatted message.
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

// Prints the failed condition with its values and aborts: a bug of ours, never the world's fault.
[[noreturn]] void check_failed(const char* condition, const char* file, int line,
                               const std::string& values);

// A safe rendering of untrusted text for an error message: control characters and invalid UTF-8
// are escaped as \xNN and at most `limit` bytes are shown.
std::string printable(std::string_view text, size_t limit = 80);

}  // namespace ocelli::host

// OCELLI_CHECK(rows > 0, "rows {} of {}", rows, name): aborts with the values when false.
#define OCELLI_CHECK(condition, ...)                                                            \
  do {                                                                                          \
    if (!(condition)) [[unlikely]]                                                              \
      ::ocelli::host::check_failed(#condition, __FILE__, __LINE__, ::fmt::format(__VA_ARGS__)); \
  } while (false)
