#include "llm/tokenizer_json_rules.h"

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "host/error.h"

namespace ocelli::llm {
namespace {

using host::fail;
using host::JsonObject;
using host::printable;
using nlohmann::json;

// The "type" of a part of the file, "" for null or none.
std::string type_of(const JsonObject& parent, const std::string& part) {
  return parent.contains(part) ? parent.object(part).string("type", "") : "";
}

std::string shown(const std::string& type) {
  return type.empty() ? "null" : printable(type);
}

void require_model(const JsonObject& model, const std::string& where) {
  const std::string type = model.string("type", "BPE");  // older files leave it out
  if (type != "BPE") {
    fail("{}: a tokenizer model of type {} is not supported, only BPE", where, printable(type));
  }
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model.string(affix, "").empty()) fail("{}: model.{} is not supported", where, affix);
  }
  if (model.boolean("ignore_merges", false)) {
    fail("{}: model.ignore_merges is not supported", where);
  }
  if (model.contains("dropout") && model.number("dropout", 0) != 0) {
    fail("{}: model.dropout is not supported", where);
  }
}

void require_byte_level(const JsonObject& root) {
  const std::string& where = root.where();
  if (root.contains("normalizer")) {
    fail("{}: the normalizer {} is not supported", where, printable(type_of(root, "normalizer")));
  }
  const std::string splitter = type_of(root, "pre_tokenizer");
  const JsonObject split = root.object("pre_tokenizer");
  if (splitter != "ByteLevel" || split.boolean("add_prefix_space", true) ||
      !split.boolean("use_regex", true)) {
    fail(
        "{}: the pre-tokenizer {} is not supported, only ByteLevel with its regex and without a "
        "prefix space",
        where, shown(splitter));
  }
  for (const char* part : {"post_processor", "decoder"}) {
    const std::string other = type_of(root, part);
    if (root.contains(part) && other != "ByteLevel") {
      fail("{}: the {} {} is not supported, only ByteLevel", where, part, printable(other));
    }
  }
}

// The parts of a Sequence, which are under `list`, or the one part; none for null.
std::vector<JsonObject> steps_of(const JsonObject& root, const std::string& part,
                                 const std::string& list) {
  if (!root.contains(part)) return {};
  const JsonObject whole = root.object(part);
  if (type_of(root, part) != "Sequence") return {whole};
  const auto steps = whole.value().find(list);
  if (steps == whole.value().end() || !steps->is_array()) {
    fail("{}: {} is missing or not an array", whole.where(), list);
  }
  std::vector<JsonObject> all;
  for (const json& step : *steps) all.emplace_back(step, whole.where() + ": " + list);
  return all;
}

// Whether a step of type Replace turns the text `from` into `to`.
bool replaces(const JsonObject& step, std::string_view from, std::string_view to) {
  const JsonObject pattern = step.object("pattern");
  return pattern.contains("String") && pattern.string("String", "") == from &&
         step.string("content", std::nullopt) == to;
}

void read_normalizer(const JsonObject& root, LlamaRules& rules) {
  for (const JsonObject& step : steps_of(root, "normalizer", "normalizers")) {
    const std::string type = step.string("type", "");
    if (type == "Prepend" && !rules.prepends && step.string("prepend", "") == kSpaceMark) {
      rules.prepends = true;
    } else if (type == "Replace" && replaces(step, " ", kSpaceMark)) {
      rules.replaces = true;
    } else {
      fail(
          "{}: the normalizer {} is not supported with model.byte_fallback, only Prepend of one "
          "U+2581 and Replace of a space by U+2581",
          root.where(), shown(type));
    }
  }
}

Prepend prepend_of(const JsonObject& step) {
  const std::string scheme = step.string("prepend_scheme", "always");
  // Older files have a flag instead, which newer ones repeat.
  if (scheme == "never" || !step.boolean("add_prefix_space", true)) return Prepend::kNever;
  if (scheme == "first") return Prepend::kFirst;
  if (scheme == "always") return Prepend::kAlways;
  fail("{}: the prepend_scheme {} is not supported, only always, first and never", step.where(),
       printable(scheme));
}

void read_pre_tokenizer(const JsonObject& root, LlamaRules& rules) {
  for (const JsonObject& step : steps_of(root, "pre_tokenizer", "pretokenizers")) {
    const std::string type = step.string("type", "");
    if (type != "Metaspace" || rules.metaspace || step.string("replacement", "") != kSpaceMark) {
      fail(
          "{}: the pre-tokenizer {} is not supported with model.byte_fallback, only one Metaspace "
          "with U+2581",
          root.where(), shown(type));
    }
    rules.metaspace = {prepend_of(step), step.boolean("split", true)};
  }
}

// The decoder is not needed to read the file, but another one means another kind of vocabulary.
void require_decoder(const JsonObject& root) {
  bool falls_back = false;
  for (const JsonObject& step : steps_of(root, "decoder", "decoders")) {
    const std::string type = step.string("type", "");
    falls_back = falls_back || type == "ByteFallback";
    const bool known = type == "ByteFallback" || type == "Fuse" ||
                       (type == "Replace" && replaces(step, kSpaceMark, " ")) ||
                       (type == "Strip" && step.string("content", "") == " ");
    if (known) continue;
    fail(
        "{}: the decoder {} is not supported with model.byte_fallback, only Replace of U+2581 by a "
        "space, ByteFallback, Fuse and Strip of a space",
        root.where(), shown(type));
  }
  if (!falls_back) {
    fail("{}: model.byte_fallback is set, but the decoder has no ByteFallback", root.where());
  }
}

}  // namespace

std::optional<LlamaRules> supported_rules(const JsonObject& root) {
  const JsonObject model = root.object("model");
  require_model(model, root.where());
  if (!model.boolean("byte_fallback", false)) {
    require_byte_level(root);
    return std::nullopt;
  }
  LlamaRules rules;
  read_normalizer(root, rules);
  read_pre_tokenizer(root, rules);
  require_decoder(root);
  const std::string around = type_of(root, "post_processor");
  if (root.contains("post_processor") && around != "TemplateProcessing") {
    fail(
        "{}: the post_processor {} is not supported with model.byte_fallback, only "
        "TemplateProcessing",
        root.where(), shown(around));
  }
  return rules;
}

}  // namespace ocelli::llm
