#include "llm/utf8_stream.h"

#include <algorithm>

#include "host/utf8.h"

namespace ocelli::llm {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace

std::string Utf8Stream::push(std::string_view bytes) {
  held_ += bytes;
  std::string text;
  std::string_view rest = held_;
  while (!rest.empty()) {
    const size_t whole = host::utf8_length(rest);
    const size_t begun = host::utf8_prefix(rest);
    if (whole == 0 && begun == rest.size()) break;  // the next bytes may complete it
    text += whole > 0 ? rest.substr(0, whole) : kReplacement;
    rest.remove_prefix(std::max<size_t>(begun, 1));
  }
  held_.erase(0, held_.size() - rest.size());
  return text;
}

std::string Utf8Stream::flush() {
  if (held_.empty()) return {};
  held_.clear();
  return std::string(kReplacement);
}

}  // namespace ocelli::llm
