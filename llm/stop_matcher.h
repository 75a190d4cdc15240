// Ends an answer at a stop string, wherever tokens cut it up.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ocelli::llm {

class StopMatcher {
 public:
  // Throws host::Error when a stop string is empty or not UTF-8.
  explicit StopMatcher(std::vector<std::string> stops);

  // Takes the next text, whole characters (see Utf8Stream); returns what can be printed: all before
  // the first stop string to be completed, without the end that may yet become one. The result does
  // not depend on where the text was cut. After a match all further text is swallowed.
  std::string push(std::string_view text);

  // The end of the answer: the text held back, which has become no stop string.
  std::string flush();

  // Whether a stop string has appeared; it and what follows it are never returned.
  bool stopped() const { return stopped_; }

 private:
  struct Stop {
    std::string text;
    std::vector<size_t> fallback;  // by matched length: the longest shorter prefix that still fits
    size_t matched = 0;            // how many of its bytes the text so far ends with
  };

  std::vector<Stop> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace ocelli::llm
