#include "llm/bpe_files.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "host/error.h"
#include "host/json.h"
#include "host/mapped_file.h"
#include "llm/tokenizer_json.h"

namespace ocelli::llm {
namespace {

using host::fail;
using host::printable;
using nlohmann::json;

// Hands the file's text to `parse(text, where, files)`.
template <typename Parse>
void parse_file(const std::filesystem::path& path, BpeFiles& files, Parse parse) {
  const host::MappedFile file(path);
  const auto bytes = file.bytes();
  if (bytes.size() > kMaxVocabularyBytes) {
    fail("{}: has {} bytes, more than the {} that a vocabulary may have", path.string(),
         bytes.size(), kMaxVocabularyBytes);
  }
  parse(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()), path.string(),
        files);
}

bool is_there(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

// The name of a special token, which is written as a string or as {"content": name, …}.
std::string special_name(const json& value, const std::string& where, std::string_view key) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object()) {
    const auto content = value.find("content");
    if (content != value.end() && content->is_string()) return content->get<std::string>();
  }
  fail("{}: {} is neither a string nor an object with \"content\"", where, key);
}

// The names that config files give to tokens that steer; all but the last hold one name each.
constexpr std::array<std::string_view, 8> kSpecialKeys = {
    "bos_token", "eos_token", "unk_token",  "pad_token",
    "sep_token", "cls_token", "mask_token", "additional_special_tokens"};

// Heeds the files of a directory that name the special tokens; returns whether they also gave the
// added tokens.
bool read_config_files(const std::filesystem::path& directory, BpeFiles& files) {
  const auto config_path = directory / "tokenizer_config.json";
  const json config = is_there(config_path) ? host::read_json(config_path) : json::object();
  parse_special_names(config, config_path.string(), files);
  const auto map_path = directory / "special_tokens_map.json";
  if (is_there(map_path)) {
    parse_special_names(host::read_json(map_path), map_path.string(), files);
  }
  return parse_added_tokens_decoder(config, config_path.string(), files);
}

void read_directory(const std::filesystem::path& directory, BpeFiles& files) {
  const bool has_added = read_config_files(directory, files);
  const auto whole = directory / "tokenizer.json";
  if (is_there(whole)) {
    files.added.clear();  // tokenizer.json repeats them
    parse_file(whole, files, parse_tokenizer_json);
    return;
  }
  for (const char* name : {"vocab.json", "merges.txt"}) {
    if (!is_there(directory / name)) {
      fail(
          "{}: has neither tokenizer.json nor {}, nor a tokenizer.model or tokenizer.bin; a model "
          "directory needs one of these vocabularies",
          directory.string(), name);
    }
  }
  parse_file(directory / "vocab.json", files, parse_vocab_json);
  parse_file(directory / "merges.txt", files, parse_merges);
  const auto added = directory / "added_tokens.json";
  if (!has_added && is_there(added)) {
    parse_added_tokens(host::read_json(added), added.string(), files);
  }
}

}  // namespace

void parse_merges(std::string_view text, const std::string& where, BpeFiles& files) {
  text = files.arena.keep(text);
  files.merges.reserve(files.merges.size() + std::count(text.begin(), text.end(), '\n') + 1);
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || (number == 1 && line.starts_with("#version"))) continue;
    const size_t space = line.find(' ');
    if (space == 0 || space >= line.size() - 1 || line.find(' ', space + 1) != line.npos) {
      fail("{}: line {} is \"{}\", wanted two tokens with one space between", where, number,
           printable(line));
    }
    files.merges.push_back({line.substr(0, space), line.substr(space + 1)});
  }
}

void parse_added_tokens(const json& added, const std::string& where, BpeFiles& files) {
  if (!added.is_object()) fail("{}: wanted an object of texts and ids", where);
  for (const auto& [text, id] : added.items()) {
    const bool special =
        std::find(files.specials.begin(), files.specials.end(), text) != files.specials.end();
    files.added.push_back({text, checked_token_id(id, where, text), special, !special});
  }
}

bool parse_added_tokens_decoder(const json& config, const std::string& where, BpeFiles& files) {
  if (!config.is_object()) fail("{}: wanted an object", where);
  const auto decoder = config.find("added_tokens_decoder");
  if (decoder == config.end() || decoder->is_null()) return false;
  if (!decoder->is_object()) fail("{}: added_tokens_decoder is not an object", where);
  for (const auto& [key, value] : decoder->items()) {
    int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size()) {
      fail("{}: added_tokens_decoder: \"{}\" is not a token id", where, printable(key));
    }
    json token = value;
    if (token.is_object()) token["id"] = id;
    files.added.push_back(parse_added_token(token, where));
  }
  return true;
}

void parse_special_names(const json& config, const std::string& where, BpeFiles& files) {
  if (!config.is_object()) fail("{}: wanted an object", where);
  for (const std::string_view key : kSpecialKeys) {
    const auto value = config.find(key);
    if (value == config.end() || value->is_null()) continue;
    if (value->is_array()) {
      for (const json& each : *value) files.specials.push_back(special_name(each, where, key));
      continue;
    }
    files.specials.push_back(special_name(*value, where, key));
    if (key == "bos_token") files.bos = files.specials.back();
    if (key == "eos_token") files.eos = files.specials.back();
  }
}

BpeFiles read_bpe_files(const std::filesystem::path& path) {
  BpeFiles files;
  files.where = path.string();
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    read_directory(path, files);
  } else {
    parse_file(path, files, parse_tokenizer_json);
  }
  if (files.specials.empty()) files.specials.emplace_back(kDefaultSpecial);
  return files;
}

}  // namespace ocelli::llm
