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

// Parses line `number` (from 1) of the file `list`.
QuestionLine parse_question_line(const std::string& line, size_t number, const std::string& list);

}  // namespace ocelli::app
