// Writes a question as the model was trained to read it: TinyLLaVA's "phi" template (MODEL.md §5).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llm/tokenizer.h"

namespace ocelli::llm {

// Stands for an image where a prompt is written as a flat list of ids, as in the reference.
constexpr int32_t kImageToken = -200;

// A stretch of a prompt: token ids, or the place of an image.
struct PromptPiece {
  int image = -1;            // which image, from 0 in the order of the turn; -1: text
  std::vector<int32_t> ids;  // of a piece of text, never empty; of an image empty
};

using Prompt = std::vector<PromptPiece>;

// The number of token ids in all pieces of text; image rows come on top.
size_t text_tokens(const Prompt& prompt);

// The prompt as one list, with kImageToken where an image goes.
std::vector<int32_t> flatten(const Prompt& prompt);

// The turns of a conversation. What a user writes is text and nothing else: "<|endoftext|>" in a
// question does not end the turn, and "<image>" is no place for an image (the reference takes both
// for the real thing, and drops an "<image>" of the question's own).
class PromptTemplate {
 public:
  // The system prompt that TinyLLaVA was trained with.
  static constexpr std::string_view kSystem =
      "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
      "helpful, detailed, and polite answers to the user's questions.";

  // `tokenizer` must outlive the template. An empty `system` leaves the system prompt out.
  explicit PromptTemplate(const Tokenizer& tokenizer, std::string system = std::string(kSystem));

  // "{system} USER: <image>\n…{question} ASSISTANT:" with as many images as told, or none. With
  // images the question loses the white space around it, as in the reference. `answer`, without
  // white space around it, is how the answer begins: a space and it follow, and what the model
  // generates continues it. Throws host::Error when one of the texts is not UTF-8.
  Prompt first_turn(std::string_view question, int images, std::string_view answer = {}) const;

  // "<|endoftext|>USER: {question} ASSISTANT:", to follow the ids of an answer (without the
  // <|endoftext|> that ended it). Throws host::Error as above, and when the vocabulary has no token
  // that ends an answer.
  Prompt next_turn(std::string_view question, int images = 0, std::string_view answer = {}) const;

 private:
  // What a user asks, and how the answer begins.
  struct Turn {
    std::string_view question;
    int images = 0;
    std::string_view answer;
  };
  void append_turn(std::string text, Turn turn, Prompt& prompt) const;

  const Tokenizer& tokenizer_;
  std::string system_;
};

// Text to be continued as it stands, without a template. Throws host::Error when it is not UTF-8.
Prompt raw_prompt(const Tokenizer& tokenizer, std::string_view text);

// The same as ids, behind the one that begins a text: BOS, or what ends a text where the vocabulary
// has no BOS. Throws host::Error also when it has neither.
std::vector<int32_t> text_from_beginning(const Tokenizer& tokenizer, std::string_view text);

}  // namespace ocelli::llm
