// JSON files with errors that name the file and the key.
//
// Stricter than the library underneath: a key that appears twice in one object is an error (the
// library keeps the last in silence), and so is nesting deeper than kMaxJsonDepth, since copying
// and printing a document recurse.
#pragma once

#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace ocelli::host {

// The deepest nesting of arrays and objects accepted; the files of published models stay under 12.
constexpr size_t kMaxJsonDepth = 100;

// Parses the file at `path`; throws Error with the path and the place of the fault. Files over
// `max_bytes` are refused before they are parsed.
nlohmann::json read_json(const std::filesystem::path& path, size_t max_bytes = 100 << 20);

// Parses `text`; throws Error whose message begins with `where`.
nlohmann::json parse_json(std::string_view text, const std::string& where);

// A reader of JSON as events, for text whose document would take too much memory. A syntax error
// throws Error with `where`, line and column.
class JsonEvents : public nlohmann::json_sax<nlohmann::json> {
 public:
  JsonEvents(std::string_view text, std::string where) : text_(text), where_(std::move(where)) {}

  // Feeds the whole text through the events below it.
  void run();

  bool binary(binary_t& /*value*/) override { return false; }  // text holds none
  bool parse_error(size_t position, const std::string& token,
                   const nlohmann::json::exception& error) final;

 protected:
  const std::string& where() const { return where_; }

 private:
  std::string_view text_;
  std::string where_;
};

// An object of a config file together with where it stands, for messages
// ("config.json: text_config").
class JsonObject {
 public:
  // Throws Error when `value` is not an object.
  JsonObject(nlohmann::json value, std::string where);

  // Whether `key` is there and not null.
  bool contains(const std::string& key) const;
  // The value of `key`, or `fallback` when it is absent or null; throws Error when there is no
  // fallback either, when the value has another type, or when a number lies outside [min, max].
  // Integers must be written as integers: 2560.0 is refused, as the reference implementation's
  // layers refuse it. A number may be written either way.
  int integer(const std::string& key, std::optional<int> fallback, int min, int max) const;
  double number(const std::string& key, std::optional<double> fallback,
                double min = std::numeric_limits<double>::lowest(),
                double max = std::numeric_limits<double>::max()) const;
  bool boolean(const std::string& key, std::optional<bool> fallback) const;
  std::string string(const std::string& key, std::optional<std::string> fallback) const;
  // The nested object `key`; an empty one when it is absent or null.
  JsonObject object(const std::string& key) const;

  const nlohmann::json& value() const { return value_; }
  const std::string& where() const { return where_; }

 private:
  // The value of `key`; null when it is absent or null and `optional`, else throws Error.
  const nlohmann::json* find(const std::string& key, bool optional) const;
  // Throws Error: `key` is not what was wanted.
  [[noreturn]] void refuse(const std::string& key, const std::string& wanted) const;

  nlohmann::json value_;
  std::string where_;
};

}  // namespace ocelli::host
