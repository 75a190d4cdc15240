// How a tokenizer.json of Llama's kind wants spaces written before its merges see the text.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace ocelli::llm {

// What such vocabularies have for a space: U+2581.
constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

// Appends `text` with marks for its spaces to `marked`, and a token with spaces for its marks to
// `text`.
void append_marked(std::string_view text, std::string& marked);
void append_unmarked(std::string_view token, std::string& text);

// Which stretches of text between added tokens get a space mark put before them.
enum class Prepend {
  kNever,
  kFirst,  // one that begins the text
  kAlways,
};

struct LlamaRules {
  // The pre-tokenizer Metaspace: replaces spaces by marks, and prepends one to a stretch that does
  // not begin with one.
  struct Metaspace {
    Prepend prepend = Prepend::kAlways;
    bool split = true;  // every mark begins a word
  };

  bool prepends = false;  // the normalizer puts a mark before every stretch
  bool replaces = false;  // the normalizer makes marks of spaces
  std::optional<Metaspace> metaspace;
};

}  // namespace ocelli::llm
