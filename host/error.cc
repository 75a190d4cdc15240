#include "host/error.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "host/utf8.h"

namespace ocelli::host {
namespace {

// C0, DEL, and C1 (U+0080…U+009F), which some terminals obey.
bool is_control(std::string_view character) {
  const auto lead = static_cast<unsigned char>(character[0]);
  if (character.size() == 1) return lead < 0x20 || lead == 0x7F;
  return character.size() == 2 && lead == 0xC2 && static_cast<unsigned char>(character[1]) < 0xA0;
}

std::string escaped(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) out += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
  return out;
}

}  // namespace

void check_failed(const char* condition, const char* file, int line, const std::string& values) {
  std::fprintf(stderr, "ocelli: internal error at %s:%d: %s is false: %s\n", file, line, condition,
               values.c_str());
  std::abort();
}

std::string printable(std::string_view text, size_t limit) {
  std::string out;
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    const std::string_view character = text.substr(0, std::max<size_t>(length, 1));
    const std::string shown =
        length == 0 || is_control(character) ? escaped(character) : std::string(character);
    if (out.size() + shown.size() > limit) return out + "...";
    out += shown;
    text.remove_prefix(character.size());
  }
  return out;
}

}  // namespace ocelli::host
