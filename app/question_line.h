// One line of a file of questions: {"image": "a.png" or ["a.png", …], "question": "…", …}.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "app/batch.h"

namespace ocelli::app {

struct QuestionLine {
  Question question;      // with `error` set when the line is broken
  nlohmann::json object;  // the whole line, or null
};

// Parses a line of the file `list`.
QuestionLine parse_question_line(const Line& line, const std::string& list);

}  // namespace ocelli::app
