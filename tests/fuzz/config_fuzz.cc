// Feeds any bytes to the JSON reader, asks the result for every kind of value, and reads it as a
// model's configuration: each must be refused with host::Error or make sense.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "app/model.h"
#include "host/error.h"
#include "host/json.h"

namespace {

using ocelli::host::Error;
using ocelli::host::JsonObject;

// Calls `get`; a value that cannot be given is no fault.
template <typename Get>
void attempt(Get get) {
  try {
    get();
  } catch (const Error&) {  // the one way to refuse
  }
}

void read_values(const JsonObject& object) {
  for (const auto& [key, value] : object.value().items()) {
    const std::string& name = key;
    attempt([&] {
      const int number = object.integer(name, std::nullopt, -5, 70'000);
      OCELLI_CHECK(number >= -5 && number <= 70'000, "{}", number);
    });
    attempt([&] {
      const double number = object.number(name, std::nullopt, 0.5, 1e6);
      OCELLI_CHECK(number >= 0.5 && number <= 1e6, "{}", number);
    });
    attempt([&] { object.boolean(name, true); });
    attempt([&] { object.string(name, "fallback"); });
    attempt([&] { read_values(object.object(name)); });
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  attempt([&] {
    const nlohmann::json document = ocelli::host::parse_json(text, "fuzz");
    // What was accepted is JSON to the library as well, and prints as text that reads the same.
    OCELLI_CHECK(ocelli::host::parse_json(document.dump(), "dump") == document, "{}", size);
    const JsonObject object(document, "fuzz");
    read_values(object);
    const auto config = ocelli::app::ModelConfig::parse(object);
    OCELLI_CHECK(config.context >= 1 && config.vocab_size() >= 1, "{}", config.context);
    const auto check_heads = [](const auto& decoder) {
      OCELLI_CHECK(decoder.hidden_size % decoder.num_attention_heads == 0 &&
                       decoder.num_attention_heads % decoder.num_key_value_heads == 0,
                   "{} of {}", decoder.hidden_size, decoder.num_attention_heads);
    };
    std::visit(check_heads, config.text);
    if (config.vision) OCELLI_CHECK(config.vision->image_rows() >= 1, "{}", size);
  });
  return 0;
}
