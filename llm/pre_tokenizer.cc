#include "llm/pre_tokenizer.h"

#include <fmt/format.h>

#include <string>

#include "host/error.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace ocelli::llm {
namespace {

// Unicode's White_Space, spelt out: PCRE2's own \s also holds U+180E, which lost that property in
// Unicode 6.3 and is not \s to Hugging Face's engine (Oniguruma). That is the only code point of
// all on which the two differ while both know the same version of Unicode.
constexpr const char* kSpaces =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

// MODEL.md §7; {0} stands for the spaces.
constexpr const char* kPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+| ?[^{0}\p{{L}}\p{{N}}]+|[{0}]+(?![^{0}])|[{0}]+)";

std::string pcre2_message(int code) {
  PCRE2_UCHAR message[256] = {};
  pcre2_get_error_message(code, message, sizeof message);
  return reinterpret_cast<const char*>(message);
}

struct FreeMatch {
  void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
};

}  // namespace

void PreTokenizer::Free::operator()(pcre2_real_code_8* code) const {
  pcre2_code_free(code);
}

PreTokenizer::PreTokenizer() {
  const std::string pattern = fmt::format(kPattern, kSpaces);
  int error = 0;
  size_t at = 0;
  regex_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                             PCRE2_UTF | PCRE2_UCP, &error, &at, nullptr));
  if (!regex_) {
    host::fail(
        "PCRE2 cannot compile the tokenizer's regex: {} at {}; it must be built with Unicode",
        pcre2_message(error), at);
  }
  // Machines that forbid code made at run time have no JIT: the interpreter then does the same.
  pcre2_jit_compile(regex_.get(), PCRE2_JIT_COMPLETE);
}

void PreTokenizer::split(std::string_view text, std::vector<std::string_view>& words) const {
  words.clear();
  const std::unique_ptr<pcre2_match_data, FreeMatch> match(
      pcre2_match_data_create_from_pattern(regex_.get(), nullptr));
  OCELLI_CHECK(match != nullptr, "no memory for a match of PCRE2");
  const size_t* const range = pcre2_get_ovector_pointer(match.get());
  for (size_t at = 0; at < text.size(); at = range[1]) {
    const int found = pcre2_match(regex_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
                                  text.size(), at, PCRE2_NO_UTF_CHECK, match.get(), nullptr);
    if (found < 0) host::fail("PCRE2 cannot split the text: {}", pcre2_message(found));
    // Every character is a letter, a number, a space or something else: no gap, never empty.
    OCELLI_CHECK(range[0] == at && range[1] > at, "[{}, {}) at {}", range[0], range[1], at);
    words.push_back(text.substr(at, range[1] - at));
  }
}

}  // namespace ocelli::llm
