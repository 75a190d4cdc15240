// Many questions through one engine: as many at a time as it takes, results in the order given.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "app/conversation.h"

namespace ocelli::app {

// A question and its pictures, by path.
struct Question {
  std::vector<std::string> images;
  std::string text;
  std::string error;  // why it cannot be asked; it then goes straight to the results
};

struct Result {
  Answer answer;
  std::string error;  // why there is no answer
};

// Asks every question and calls done(index, result) for each, in order. A question that fails is a
// result with its reason; the others go on. Returns false when Ctrl-C ended it early.
bool answer_all(Pipeline& pipeline, const std::vector<Question>& questions,
                const AnswerOptions& options, const vision::DecodeOptions& decode,
                const std::function<void(size_t index, const Result& result)>& done);

// Reads and times the pictures at `paths`; "-" is standard input.
Pictures read_pictures(const std::vector<std::string>& paths, const vision::DecodeOptions& decode);

// A line of a file, with its number from 1 on.
struct Line {
  size_t number = 0;
  std::string text;
};

// The lines of a file that are not blank, "-" being standard input. Throws host::Error when it
// cannot be read or has none, which says what was expected to be there.
std::vector<Line> read_lines(const std::string& path, std::string_view expected = "questions");

// `image` as a line of the file `list` means it: relative to that file's folder.
std::string resolve_image(const std::string& image, const std::string& list);

}  // namespace ocelli::app
