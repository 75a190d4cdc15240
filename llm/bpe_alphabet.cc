#include "llm/bpe_alphabet.h"

#include <utility>

#include "host/error.h"

namespace ocelli::llm {
void ByteAlphabet::split(std::string_view text, bool /*begins_text*/, std::string& /*buffer*/,
                         std::vector<std::string_view>& words) const {
  pre_tokenizer_.split(text, words);
}

void ByteAlphabet::start(std::string_view word, std::vector<int32_t>& tokens) const {
  tokens.clear();
  for (const char character : word) {
    const auto byte = static_cast<unsigned char>(character);
    if (byte_ids_[byte] < 0) {
      host::fail("the vocabulary has no token for the byte 0x{:02x} in \"{}\"", byte,
                 host::printable(word));
    }
    tokens.push_back(byte_ids_[byte]);
  }
}

LlamaAlphabet::LlamaAlphabet(const LlamaRules& rules, CharacterIds characters)
    : rules_(rules), characters_(std::move(characters)) {
}

std::string_view LlamaAlphabet::normalize(std::string_view text, std::string& buffer) const {
  if (text.empty() || (!rules_.prepends && !rules_.replaces)) return text;
  buffer = rules_.prepends ? kSpaceMark : std::string_view();
  if (rules_.replaces) {
    append_marked(text, buffer);
  } else {
    buffer += text;
  }
  return buffer;
}

void LlamaAlphabet::split(std::string_view text, bool begins_text, std::string& buffer,
                          std::vector<std::string_view>& words) const {
  words.clear();
  if (text.empty()) return;
  if (rules_.metaspace) {
    const Prepend prepend = rules_.metaspace->prepend;
    const bool prepends =
        prepend == Prepend::kAlways || (prepend == Prepend::kFirst && begins_text);
    buffer.clear();
    if (prepends && !text.starts_with(' ') && !text.starts_with(kSpaceMark)) buffer = kSpaceMark;
    append_marked(text, buffer);
    text = buffer;
  }
  while (rules_.metaspace && rules_.metaspace->split) {
    const size_t next = text.find(kSpaceMark, 1);  // one at the start belongs to this word
    if (next == text.npos) break;
    words.push_back(text.substr(0, next));
    text.remove_prefix(next);
  }
  words.push_back(text);
}

void LlamaAlphabet::start(std::string_view word, std::vector<int32_t>& tokens) const {
  tokens.clear();
  characters_.append(word, tokens);
}

Prepend LlamaAlphabet::adds_space() const {
  if (rules_.prepends) return Prepend::kAlways;
  return rules_.metaspace ? rules_.metaspace->prepend : Prepend::kNever;
}

}  // namespace ocelli::llm
