#include "llm/tokenizer_json.h"

#include <array>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "host/error.h"
#include "host/json.h"
#include "llm/tokenizer_json_rules.h"

namespace ocelli::llm {
namespace {

using host::fail;
using host::JsonEvents;
using host::JsonObject;
using host::printable;
using nlohmann::json;

// {"token": id, …} in a row of events.
class VocabularyEvents {
 public:
  VocabularyEvents(std::string where, BpeFiles& files) : where_(std::move(where)), files_(files) {}

  void key(std::string_view text) { text_ = files_.arena.keep(text); }
  void value(const json& id) {
    files_.tokens.push_back({text_, checked_token_id(id, where_, text_)});
  }
  [[noreturn]] void refuse() const {
    fail("{}: the vocabulary gives no id but something else for the token \"{}\"", where_,
         printable(text_));
  }

 private:
  std::string where_;
  BpeFiles& files_;
  std::string_view text_;
};

// vocab.json, which is one such object.
class VocabularyFile final : public JsonEvents {
 public:
  VocabularyFile(std::string_view text, const std::string& where, BpeFiles& files)
      : JsonEvents(text, where), vocabulary_(where, files) {}

  bool key(string_t& name) override { return vocabulary_.key(name), true; }
  bool number_unsigned(number_unsigned_t value) override { return id(value); }
  bool number_integer(number_integer_t value) override { return id(value); }
  bool number_float(number_float_t value, const string_t& /*text*/) override { return id(value); }
  bool null() override { return id(nullptr); }
  bool boolean(bool value) override { return id(value); }
  bool string(string_t& value) override { return id(value); }
  bool start_object(size_t /*size*/) override {
    if (std::exchange(open_, true)) vocabulary_.refuse();
    return true;
  }
  bool end_object() override { return true; }
  bool start_array(size_t /*size*/) override {
    if (!open_) fail("{}: wanted an object of tokens and ids", where());
    vocabulary_.refuse();
  }
  bool end_array() override { return true; }

 private:
  bool id(const json& value) {
    if (!open_) fail("{}: wanted an object of tokens and ids", where());
    return vocabulary_.value(value), true;
  }

  VocabularyEvents vocabulary_;
  bool open_ = false;
};

// tokenizer.json: model.vocab and model.merges go straight to the files, the rest to a document.
class TokenizerFile final : public JsonEvents {
 public:
  TokenizerFile(std::string_view text, const std::string& where, BpeFiles& files)
      : JsonEvents(text, where), files_(files), vocabulary_(where, files) {}

  json take_rest() { return std::move(root_); }

  void require_parts() const {
    if (!has_vocabulary_) fail("{}: model.vocab is missing or not an object", where());
    if (!has_merges_) fail("{}: model.merges is missing or not an array", where());
  }

  bool null() override { return value(nullptr); }
  bool boolean(bool flag) override { return value(flag); }
  bool number_integer(number_integer_t number) override { return value(number); }
  bool number_unsigned(number_unsigned_t number) override { return value(number); }
  bool number_float(number_float_t number, const string_t& /*text*/) override {
    return value(number);
  }
  bool string(string_t& text) override {
    return part_ == Part::kMerges ? merge_text(text) : value(std::move(text));
  }

  bool key(string_t& name) override {
    if (part_ == Part::kVocabulary) return vocabulary_.key(name), true;
    if (part_ == Part::kMerges) refuse_merge();
    key_ = name;
    return true;
  }

  bool start_object(size_t /*size*/) override {
    if (part_ == Part::kVocabulary) vocabulary_.refuse();
    if (part_ == Part::kMerges) refuse_merge();
    if (!in_model() || key_ != "vocab") return open(json::object());
    return enter(Part::kVocabulary);
  }
  bool end_object() override {
    if (std::exchange(part_, Part::kRest) != Part::kVocabulary) open_.pop_back();
    return true;
  }

  bool start_array(size_t /*size*/) override {
    if (part_ == Part::kVocabulary) vocabulary_.refuse();
    if (part_ == Part::kMerges) {
      if (std::exchange(in_pair_, true)) refuse_merge();
      return true;
    }
    if (!in_model() || key_ != "merges") return open(json::array());
    return enter(Part::kMerges);
  }
  bool end_array() override {
    if (part_ != Part::kMerges) {
      open_.pop_back();
    } else if (!std::exchange(in_pair_, false)) {
      part_ = Part::kRest;
    } else {
      if (std::exchange(pair_texts_, 0) != 2) refuse_merge();
      files_.merges.push_back({pair_[0], pair_[1]});
    }
    return true;
  }

 private:
  enum class Part { kRest, kVocabulary, kMerges };

  // Whether the object around the current key is the top level's "model".
  bool in_model() const { return open_.size() == 2 && open_[1] == model_; }

  json* store(json item) {
    if (open_.empty()) return &(root_ = std::move(item));
    json& container = *open_.back();
    if (container.is_array()) {
      container.push_back(std::move(item));
      return &container.back();
    }
    const auto [place, fresh] = container.get_ref<json::object_t&>().emplace(key_, std::move(item));
    if (!fresh) fail("{}: the key \"{}\" appears twice in one object", where(), printable(key_));
    return &place->second;
  }

  // The document keeps a null for a part that goes to the files, so that it cannot come twice.
  bool enter(Part part) {
    store(nullptr);
    (part == Part::kVocabulary ? has_vocabulary_ : has_merges_) = true;
    part_ = part;
    return true;
  }

  bool value(json item) {
    if (part_ == Part::kMerges) refuse_merge();
    if (part_ == Part::kVocabulary) {
      vocabulary_.value(item);
    } else {
      store(std::move(item));
    }
    return true;
  }

  bool open(json container) {
    if (open_.size() == host::kMaxJsonDepth) {
      fail("{}: is nested deeper than {} levels", where(), host::kMaxJsonDepth);
    }
    json* const stored = store(std::move(container));
    if (open_.size() == 1 && open_[0]->is_object() && key_ == "model") model_ = stored;
    open_.push_back(stored);
    return true;
  }

  // A merge is "left right", or ["left", "right"] in newer files.
  bool merge_text(std::string_view text) {
    const std::string_view kept = files_.arena.keep(text);
    if (in_pair_) {
      if (pair_texts_ == 2) refuse_merge();
      pair_[pair_texts_++] = kept;
      return true;
    }
    const size_t space = kept.find(' ');
    if (space == kept.npos || kept.find(' ', space + 1) != kept.npos) refuse_merge();
    files_.merges.push_back({kept.substr(0, space), kept.substr(space + 1)});
    return true;
  }

  [[noreturn]] void refuse_merge() const {
    fail("{}: merge {} is not two tokens, written \"left right\" or [\"left\", \"right\"]", where(),
         files_.merges.size() + 1);
  }

  BpeFiles& files_;
  VocabularyEvents vocabulary_;
  json root_;
  std::vector<json*> open_;  // the containers around the current place; only the last one grows
  json* model_ = nullptr;
  std::string key_;
  Part part_ = Part::kRest;
  bool has_vocabulary_ = false;
  bool has_merges_ = false;
  bool in_pair_ = false;
  std::array<std::string_view, 2> pair_;
  size_t pair_texts_ = 0;
};

}  // namespace

int32_t checked_token_id(const json& id, const std::string& where, std::string_view text) {
  if (!id.is_number_integer() || id < 0 || id > kMaxTokenId) {
    fail("{}: the token \"{}\" has the id {}, wanted an integer from 0 to {}", where,
         printable(text), printable(id.dump(-1, ' ', false, json::error_handler_t::replace), 40),
         kMaxTokenId);
  }
  return id.get<int32_t>();
}

AddedToken parse_added_token(const json& token, const std::string& where) {
  const JsonObject fields(token, where + ": an added token");
  AddedToken added;
  added.text = fields.string("content", std::nullopt);
  added.id = checked_token_id(token.value("id", json(nullptr)), where, added.text);
  added.special = fields.boolean("special", false);
  added.normalized = fields.boolean("normalized", !added.special);
  for (const char* flag : {"lstrip", "rstrip", "single_word"}) {
    if (fields.boolean(flag, false)) {
      fail("{}: the added token \"{}\" has {}, which is not supported", where,
           printable(added.text), flag);
    }
  }
  return added;
}

void parse_vocab_json(std::string_view text, const std::string& where, BpeFiles& files) {
  VocabularyFile(text, where, files).run();
}

void parse_tokenizer_json(std::string_view text, const std::string& where, BpeFiles& files) {
  TokenizerFile reader(text, where, files);
  reader.run();
  const JsonObject root(reader.take_rest(), where);
  files.llama = supported_rules(root);
  reader.require_parts();
  const auto added = root.value().find("added_tokens");
  if (added == root.value().end() || added->is_null()) return;
  if (!added->is_array()) fail("{}: added_tokens is not an array", where);
  for (const json& token : *added) files.added.push_back(parse_added_token(token, where));
}

}  // namespace ocelli::llm
