#include "app/json_output.h"

namespace ocelli::app {

nlohmann::json to_json(const Answer& answer) {
  const Timings& t = answer.timings;
  return {{"answer", answer.text},
          {"finish", name(answer.finish)},
          {"tokens",
           {{"prompt", answer.prompt_tokens},
            {"image", answer.image_rows},
            {"generated", answer.tokens}}},
          {"timings_ms",
           {{"load", t.load},
            {"image", t.image},
            {"encode", t.encode},
            {"connector", t.connector},
            {"prefill", t.prefill},
            {"generate", t.generate}}}};
}

std::string json_line(const nlohmann::json& object) {
  return object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace ocelli::app
