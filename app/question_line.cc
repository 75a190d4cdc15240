#include "app/question_line.h"

#include "host/error.h"
#include "host/json.h"

namespace ocelli::app {
namespace {

std::vector<std::string> parse_images(const nlohmann::json& value, const std::string& list) {
  std::vector<std::string> images;
  if (value.is_null()) return images;
  const auto add = [&](const nlohmann::json& image) {
    if (!image.is_string()) host::fail("\"image\" must be a path or a list of paths");
    images.push_back(resolve_image(image.get<std::string>(), list));
  };
  if (value.is_array()) {
    for (const nlohmann::json& image : value) add(image);
  } else {
    add(value);
  }
  return images;
}

}  // namespace

QuestionLine parse_question_line(const Line& line, const std::string& list) {
  QuestionLine parsed;
  try {
    const nlohmann::json object = host::parse_json(line.text, "JSON");
    if (!object.is_object()) host::fail("a line must be an object");
    parsed.object = object;
    const auto question = object.find("question");
    if (question == object.end() || !question->is_string()) {
      host::fail("\"question\" is missing or no text");
    }
    parsed.question.text = question->get<std::string>();
    parsed.question.images = parse_images(object.value("image", nlohmann::json()), list);
  } catch (const host::Error& error) {
    parsed.question.error =
        fmt::format("{}:{}: {}", list == "-" ? "standard input" : list, line.number, error.what());
  }
  return parsed;
}

}  // namespace ocelli::app
