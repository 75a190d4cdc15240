#include "host/error.h"

#include <cstdio>
#include <cstdlib>

#include "host/utf8.h"

namespace ocelli::host {

void check_failed(const char* condition, const char* file, int line, const std::string& values) {
  std::fprintf(stderr, "ocelli: internal error at %s:%d: %s is false: %s\n", file, line, condition,
               values.c_str());
  std::abort();
}

std::string printable(std::string_view text, size_t limit) {
  std::string out;
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    const bool control = length == 1 && (text[0] < 0x20 || text[0] == 0x7F);
    if (out.size() + (length == 0 || control ? 4 : length) > limit) return out + "...";
    if (length == 0 || control) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[0]));
      text.remove_prefix(1);
    } else {
      out += text.substr(0, length);
      text.remove_prefix(length);
    }
  }
  return out;
}

}  // namespace ocelli::host
