// Splits text into the words that byte-level BPE works on, by GPT-2's Unicode regex through PCRE2.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

struct pcre2_real_code_8;

namespace ocelli::llm {

class PreTokenizer {
 public:
  PreTokenizer();

  // Replaces `words` by the words of `text`, in order and without gaps. `text` must be valid UTF-8.
  // Throws host::Error when PCRE2 gives up (out of memory).
  void split(std::string_view text, std::vector<std::string_view>& words) const;

 private:
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
  };
  std::unique_ptr<pcre2_real_code_8, Free> regex_;
};

}  // namespace ocelli::llm
