#include "host/utf8.h"

#include <algorithm>

namespace ocelli::host {
namespace {

// The length that a lead byte announces, 0 for a byte that leads nothing.
size_t announced_length(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  return lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
}

// Whether `next` may follow `lead`: some leads narrow the range, against overlong forms (E0, F0),
// surrogates (ED) and values over U+10FFFF (F4).
bool may_follow(unsigned char lead, unsigned char next) {
  const unsigned char lowest = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned char highest = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  return next >= lowest && next <= highest;
}

}  // namespace

size_t utf8_prefix(std::string_view text) {
  if (text.empty()) return 0;
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const size_t wanted = std::min(announced_length(byte(0)), text.size());
  if (wanted < 2) return wanted;
  if (!may_follow(byte(0), byte(1))) return 1;
  size_t length = 2;
  while (length < wanted && (byte(length) & 0xC0) == 0x80) ++length;
  return length;
}

size_t utf8_length(std::string_view text) {
  const size_t length = utf8_prefix(text);
  return length > 0 && length == announced_length(static_cast<unsigned char>(text[0])) ? length : 0;
}

size_t utf8_fault(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    const size_t length = utf8_length(text.substr(at));
    if (length == 0) return at;
    at += length;
  }
  return std::string_view::npos;
}

}  // namespace ocelli::host
