#include "llm/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "host/error.h"
#include "host/utf8.h"

namespace ocelli::llm {
namespace {

// How many bytes of `text` are matched once `byte` follows a match of `matched` of them (Knuth,
// Morris and Pratt).
size_t advance(std::string_view text, const std::vector<size_t>& fallback, size_t matched,
               char byte) {
  while (matched > 0 && (matched == text.size() || text[matched] != byte)) {
    matched = fallback[matched];
  }
  return text[matched] == byte ? matched + 1 : 0;
}

}  // namespace

StopMatcher::StopMatcher(std::vector<std::string> stops) {
  for (std::string& stop : stops) {
    if (stop.empty()) host::fail("a stop string is empty; leave it out");
    if (host::utf8_fault(stop) != std::string::npos) {
      host::fail("the stop string \"{}\" is not valid UTF-8", host::printable(stop));
    }
    std::vector<size_t> fallback(stop.size() + 1);
    for (size_t length = 2; length <= stop.size(); ++length) {
      fallback[length] = advance(stop, fallback, fallback[length - 1], stop[length - 1]);
    }
    stops_.push_back({std::move(stop), std::move(fallback)});
  }
}

std::string StopMatcher::push(std::string_view text) {
  if (stopped_) return {};
  size_t begun = 0;  // the longest end of the text that begins a stop string
  for (const char byte : text) {
    held_ += byte;
    begun = 0;
    size_t completed = 0;  // of several that end here the longest takes the most away
    for (Stop& stop : stops_) {
      stop.matched = advance(stop.text, stop.fallback, stop.matched, byte);
      begun = std::max(begun, stop.matched);
      if (stop.matched == stop.text.size()) completed = std::max(completed, stop.matched);
    }
    if (completed > 0) {
      stopped_ = true;
      held_.resize(held_.size() - completed);
      return std::exchange(held_, {});
    }
  }
  if (text.empty()) return {};
  std::string sure = held_.substr(0, held_.size() - begun);
  held_.erase(0, sure.size());
  return sure;
}

std::string StopMatcher::flush() {
  return std::exchange(held_, {});
}

}  // namespace ocelli::llm
