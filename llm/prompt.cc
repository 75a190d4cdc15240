#include "llm/prompt.h"

#include <array>
#include <utility>

#include "host/error.h"

namespace ocelli::llm {
namespace {

// What Python's str.strip() takes away: Unicode's White_Space and U+001C…U+001F.
constexpr std::array<std::string_view, 29> kSpaces = {
    "\t",           "\n",           "\v",           "\f",           "\r",
    "\x1C",         "\x1D",         "\x1E",         "\x1F",         " ",
    "\xC2\x85",     "\xC2\xA0",     "\xE1\x9A\x80", "\xE2\x80\x80", "\xE2\x80\x81",
    "\xE2\x80\x82", "\xE2\x80\x83", "\xE2\x80\x84", "\xE2\x80\x85", "\xE2\x80\x86",
    "\xE2\x80\x87", "\xE2\x80\x88", "\xE2\x80\x89", "\xE2\x80\x8A", "\xE2\x80\xA8",
    "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80"};

std::string_view strip(std::string_view text) {
  for (bool found = true; found;) {
    found = false;
    for (const std::string_view space : kSpaces) {
      if (text.starts_with(space)) {
        text.remove_prefix(space.size());
        found = true;
      }
      if (text.ends_with(space)) {
        text.remove_suffix(space.size());
        found = true;
      }
    }
  }
  return text;
}

void append_text(const Tokenizer& tokenizer, std::string_view text, Prompt& prompt) {
  std::vector<int32_t> ids = tokenizer.encode(text, SpecialTokens::kPlain);
  if (!ids.empty()) prompt.push_back({-1, std::move(ids)});
}

}  // namespace

size_t text_tokens(const Prompt& prompt) {
  size_t count = 0;
  for (const PromptPiece& piece : prompt) count += piece.ids.size();
  return count;
}

std::vector<int32_t> flatten(const Prompt& prompt) {
  std::vector<int32_t> ids;
  for (const PromptPiece& piece : prompt) {
    if (piece.image >= 0) ids.push_back(kImageToken);
    ids.insert(ids.end(), piece.ids.begin(), piece.ids.end());
  }
  return ids;
}

PromptTemplate::PromptTemplate(const Tokenizer& tokenizer, std::string system)
    : tokenizer_(tokenizer), system_(std::move(system)) {
}

Prompt PromptTemplate::first_turn(std::string_view question, int images,
                                  std::string_view answer) const {
  Prompt prompt;
  append_turn(system_.empty() ? "" : system_ + " ", {question, images, answer}, prompt);
  return prompt;
}

Prompt PromptTemplate::next_turn(std::string_view question, int images,
                                 std::string_view answer) const {
  if (tokenizer_.eos() < 0) {
    host::fail("the vocabulary names no token that ends an answer, so no further turn can follow");
  }
  Prompt prompt = {{-1, {tokenizer_.eos()}}};
  append_turn("", {question, images, answer}, prompt);
  return prompt;
}

// Appends `text` and the turn. Each stretch of text between images is tokenised by itself, as the
// reference does, and as a whole: the template's words next to the question change its tokens.
void PromptTemplate::append_turn(std::string text, Turn turn, Prompt& prompt) const {
  OCELLI_CHECK(turn.images >= 0, "{} images", turn.images);
  text += "USER: ";
  for (int image = 0; image < turn.images; ++image) {
    append_text(tokenizer_, text, prompt);
    prompt.push_back({image, {}});
    text.assign(1, '\n');  // GCC 12 warns of an overlap in text = "\n" (its bug 105329)
  }
  if (turn.images > 0) {
    turn.question = strip(turn.question);
    if (turn.question.empty()) text.clear();  // the reference strips the last "<image>\n" as well
  }
  text += turn.question;
  text += " ASSISTANT:";
  if (!turn.answer.empty()) text.append(1, ' ').append(turn.answer);
  append_text(tokenizer_, text, prompt);
}

Prompt raw_prompt(const Tokenizer& tokenizer, std::string_view text) {
  Prompt prompt;
  append_text(tokenizer, text, prompt);
  return prompt;
}

std::vector<int32_t> text_from_beginning(const Tokenizer& tokenizer, std::string_view text) {
  const int32_t begin = tokenizer.bos() >= 0 ? tokenizer.bos() : tokenizer.eos();
  if (begin < 0) host::fail("this vocabulary has no token that begins a text");
  std::vector<int32_t> ids = flatten(raw_prompt(tokenizer, text));
  ids.insert(ids.begin(), begin);
  return ids;
}

}  // namespace ocelli::llm
