#include "host/json.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "host/error.h"
#include "host/mapped_file.h"

namespace ocelli::host {
namespace {

using nlohmann::json;

// Builds the document, refusing repeated keys and deep nesting on the way.
class DocumentBuilder final : public JsonEvents {
 public:
  using JsonEvents::JsonEvents;

  json document() && { return std::move(root_); }

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t& /*text*/) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool start_object(size_t /*size*/) override { return open(json::object()); }
  bool end_object() override { return close(); }
  bool start_array(size_t /*size*/) override { return open(json::array()); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    const auto [place, fresh] = open_.back()->get_ref<json::object_t&>().emplace(name, nullptr);
    if (!fresh) fail("{}: the key \"{}\" appears twice in one object", where(), printable(name));
    slot_ = &place->second;
    return true;
  }

 private:
  // Stores a value where the document has come to: the root, the next element or the current key.
  json* store(json value) {
    if (open_.empty()) return &(root_ = std::move(value));
    if (open_.back()->is_array()) {
      auto& elements = open_.back()->get_ref<json::array_t&>();
      elements.push_back(std::move(value));
      return &elements.back();
    }
    return &(*slot_ = std::move(value));
  }

  bool put(json value) {
    store(std::move(value));
    return true;
  }

  bool open(json container) {
    if (open_.size() == kMaxJsonDepth) {
      fail("{}: is nested deeper than {} levels", where(), kMaxJsonDepth);
    }
    open_.push_back(store(std::move(container)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  json root_;
  std::vector<json*> open_;  // the containers around the current place; only the last one grows
  json* slot_ = nullptr;     // the value of the last key
};

// "line 3, column 7": the place after `before`.
std::string line_and_column(std::string_view before) {
  const size_t newline = before.rfind('\n');
  const size_t line_start = newline == before.npos ? 0 : newline + 1;
  return fmt::format("line {}, column {}", std::count(before.begin(), before.end(), '\n') + 1,
                     before.size() - line_start + 1);
}

// The library's message without its own prefix and position.
std::string_view reason(std::string_view message) {
  if (const size_t end = message.find("] "); end != message.npos) message.remove_prefix(end + 2);
  if (message.starts_with("parse error")) {
    if (const size_t end = message.find(": "); end != message.npos) message.remove_prefix(end + 2);
  }
  return message;
}

// What stands in the file, for a message: short values themselves, containers by their kind.
std::string found(const json& value) {
  if (value.is_structured()) return value.is_array() ? "an array" : "an object";
  return printable(value.dump(-1, ' ', false, json::error_handler_t::replace), 60);
}

}  // namespace

void JsonEvents::run() {
  // The library takes a zero byte for the text's end and would ignore what follows it.
  if (const size_t zero = text_.find('\0'); zero != text_.npos) {
    fail("{}: {}: is not valid JSON: a zero byte", where_, line_and_column(text_.substr(0, zero)));
  }
  json::sax_parse(text_.begin(), text_.end(), static_cast<json_sax<json>*>(this));
}

bool JsonEvents::parse_error(size_t position, const std::string& /*token*/,
                             const json::exception& error) {
  const size_t fault = std::min(position == 0 ? 0 : position - 1, text_.size());
  fail("{}: {}: is not valid JSON: {}", where_, line_and_column(text_.substr(0, fault)),
       printable(reason(error.what()), 160));
}

json parse_json(std::string_view text, const std::string& where) {
  DocumentBuilder builder(text, where);
  builder.run();
  return std::move(builder).document();
}

json read_json(const std::filesystem::path& path, size_t max_bytes) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  if (bytes.size() > max_bytes) {
    fail("{}: has {} bytes, more than the {} that such a file may have", path.string(),
         bytes.size(), max_bytes);
  }
  return parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
}

JsonObject::JsonObject(json value, std::string where)
    : value_(std::move(value)), where_(std::move(where)) {
  if (!value_.is_object()) fail("{}: is {}, wanted an object", where_, found(value_));
}

bool JsonObject::contains(const std::string& key) const {
  return find(key, true) != nullptr;
}

const json* JsonObject::find(const std::string& key, bool optional) const {
  const auto place = value_.find(key);
  if (place != value_.end() && !place->is_null()) return &*place;
  if (!optional) fail("{}: {} is missing", where_, printable(key));
  return nullptr;
}

void JsonObject::refuse(const std::string& key, const std::string& wanted) const {
  fail("{}: {} is {}, wanted {}", where_, printable(key), found(value_.at(key)), wanted);
}

int JsonObject::integer(const std::string& key, std::optional<int> fallback, int min,
                        int max) const {
  const json* value = find(key, fallback.has_value());
  if (value == nullptr) return *fallback;
  // An unsigned number past int64's range would turn negative if it were read as signed.
  const bool fits = value->is_number_unsigned()
                        ? std::cmp_less_equal(value->get<uint64_t>(), max) &&
                              std::cmp_greater_equal(value->get<uint64_t>(), min)
                        : value->is_number_integer() && value->get<int64_t>() >= min &&
                              value->get<int64_t>() <= max;
  if (!fits) refuse(key, fmt::format("an integer from {} to {}", min, max));
  return value->get<int>();
}

double JsonObject::number(const std::string& key, std::optional<double> fallback, double min,
                          double max) const {
  const json* value = find(key, fallback.has_value());
  if (value == nullptr) return *fallback;
  if (!value->is_number()) refuse(key, "a number");
  const auto number = value->get<double>();
  if (!(number >= min && number <= max)) {
    refuse(key, fmt::format("a number from {:g} to {:g}", min, max));
  }
  return number;
}

bool JsonObject::boolean(const std::string& key, std::optional<bool> fallback) const {
  const json* value = find(key, fallback.has_value());
  if (value == nullptr) return *fallback;
  if (!value->is_boolean()) refuse(key, "true or false");
  return value->get<bool>();
}

std::string JsonObject::string(const std::string& key, std::optional<std::string> fallback) const {
  const json* value = find(key, fallback.has_value());
  if (value == nullptr) return std::move(*fallback);
  if (!value->is_string()) refuse(key, "a string");
  return value->get<std::string>();
}

JsonObject JsonObject::object(const std::string& key) const {
  const json* value = find(key, true);
  return {value == nullptr ? json::object() : *value, where_ + ": " + printable(key)};
}

}  // namespace ocelli::host
