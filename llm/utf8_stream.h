// Turns the bytes of tokens, which end anywhere, into text that always ends with a whole character.
#pragma once

#include <string>
#include <string_view>

namespace ocelli::llm {

class Utf8Stream {
 public:
  // Takes the next bytes; returns the characters that they complete, valid UTF-8, possibly none.
  // Bytes that can belong to no character come out as U+FFFD, in the numbers in which Python's
  // bytes.decode(errors="replace") gives them, however they were cut up.
  std::string push(std::string_view bytes);

  // The end of the text: U+FFFD when a character was left unfinished, else nothing.
  std::string flush();

 private:
  std::string held_;  // the start of a character, at most 3 bytes
};

}  // namespace ocelli::llm
