// Small changes to text that several commands make.
#pragma once

#include <string>
#include <string_view>

namespace ocelli::app {

// Without spaces, tabs and line ends at its end.
inline std::string trimmed_end(std::string_view text) {
  return std::string(text.substr(0, text.find_last_not_of(" \t\r\n") + 1));
}

// Without them on either side.
inline std::string trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  return first == text.npos ? "" : trimmed_end(text.substr(first));
}

}  // namespace ocelli::app
