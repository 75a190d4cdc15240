// Whether a caption may be taken for a good one, by its text and by how sure the model was.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "app/caption_record.h"

// PCRE2's compiled pattern; its header stays out of everybody else's.
struct pcre2_real_code_8;

namespace ocelli::app {

// Words that no caption may contain. A word counts where it stands by itself ("cat" is neither in
// "catalogue" nor in "bobcat"), in capitals or not, as Unicode has them; one of several words ("sun
// glasses") with any white space between them.
class ForbiddenWords {
 public:
  // Words of "cat, sun glasses": separated by commas, the white space around them aside. Throws
  // host::Error when they are not UTF-8.
  ForbiddenWords() = default;
  explicit ForbiddenWords(const std::vector<std::string>& lists);

  bool empty() const { return words_.empty(); }
  const std::vector<std::string>& words() const { return words_; }
  // Whether one of them is in `text`.
  bool found_in(std::string_view text) const;

 private:
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
  };
  std::vector<std::string> words_;
  std::unique_ptr<pcre2_real_code_8, Free> regex_;
};

// Whether the text runs in a circle: a word five times on end, two words four times, up to seven
// three times, or more of them twice; characters of scripts that put no spaces between words count
// as words.
bool is_looping(std::string_view text);

// Whether the text declines to say anything ("I'm sorry, …", "As an AI language model, …").
bool is_refusal(std::string_view text);

struct CaptionGates {
  double min_confidence = 0.2;
  ForbiddenWords forbidden;

  // What is to be thought of a caption, of which `text` is the part that the model wrote: kOk, or
  // the first that holds of kEmpty, kRefused, kLooping, kForbidden, kLowConfidence.
  CaptionStatus judge(std::string_view text, double confidence) const;
};

}  // namespace ocelli::app
