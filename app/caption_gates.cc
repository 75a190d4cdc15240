#include "app/caption_gates.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>

#include "app/text.h"
#include "host/error.h"
#include "host/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace ocelli::app {
namespace {

constexpr std::string_view kSpaces = " \t\r\n";
// The longest circle looked for, in words.
constexpr size_t kLongestCircle = 64;
// Characters whose UTF-8 begins above this are U+3000 and beyond: where the scripts are that put no
// spaces between words.
constexpr unsigned char kLastSpacedLead = 0xE2;
// How a text begins that declines.
constexpr auto kRefusals = std::to_array<std::string_view>(
    {"i cannot", "i can't", "i can not", "i am unable", "i'm unable", "i am not able",
     "i'm not able", "i am sorry", "i'm sorry", "sorry, i", "sorry, but", "i apologize",
     "i apologise", "unfortunately, i", "i don't have the ability", "i do not have the ability"});
// What gives it away anywhere.
constexpr auto kAdmissions = std::to_array<std::string_view>(
    {"as an ai language model", "as an ai assistant", "as an ai model"});

// How many times more a phrase of so many words, said once, must follow to make a circle.
size_t repeats_allowed(size_t words) {
  constexpr std::array<size_t, 7> kShort = {4, 3, 2, 2, 2, 2, 2};
  return words <= kShort.size() ? kShort[words - 1] : 1;
}

// `text` in lower case (ASCII) with plain apostrophes.
std::string plain(std::string_view text) {
  constexpr std::string_view kCurly = "\xE2\x80\x99";
  std::string result;
  while (!text.empty()) {
    if (text.starts_with(kCurly)) {
      result += '\'';
      text.remove_prefix(kCurly.size());
      continue;
    }
    const char c = text.front();
    result += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    text.remove_prefix(1);
  }
  return result;
}

// Words as white space parts them, without the punctuation at their ends.
std::vector<std::string_view> words_of(std::string_view text) {
  constexpr std::string_view kPunctuation = ".,;:!?\"'()";
  std::vector<std::string_view> words;
  const auto add = [&](std::string_view word) {
    const size_t first = word.find_first_not_of(kPunctuation);
    if (first == word.npos) return;
    words.push_back(word.substr(first, word.find_last_not_of(kPunctuation) - first + 1));
  };
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t length = std::max<size_t>(1, host::utf8_length(text.substr(at)));
    const bool ideograph = length >= 3 && static_cast<unsigned char>(text[at]) > kLastSpacedLead;
    if (ideograph || kSpaces.find(text[at]) != kSpaces.npos) {
      add(text.substr(begin, at - begin));
      if (ideograph) words.push_back(text.substr(at, length));
      begin = at + length;
    }
    at += length;
  }
  add(text.substr(begin));
  return words;
}

// A pattern of the words of `phrase`, whatever is in them, with white space between them.
std::string pattern_of(std::string_view phrase) {
  std::string pattern;
  for (size_t begin = 0; begin < phrase.size();) {
    const size_t end = std::min(phrase.find_first_of(kSpaces, begin), phrase.size());
    if (end > begin) {
      if (!pattern.empty()) pattern += R"(\s+)";
      for (const char c : phrase.substr(begin, end - begin)) {
        // A backslash before a character that is no letter and no digit always stands for it.
        const bool special =
            c > ' ' && c < 0x7F && std::isalnum(static_cast<unsigned char>(c)) == 0;
        if (special) pattern += '\\';
        pattern += c;
      }
    }
    begin = end + 1;
  }
  return pattern;
}

}  // namespace

void ForbiddenWords::Free::operator()(pcre2_real_code_8* code) const {
  pcre2_code_free(code);
}

ForbiddenWords::ForbiddenWords(const std::vector<std::string>& lists) {
  std::string pattern;
  for (const std::string& list : lists) {
    for (size_t begin = 0; begin <= list.size();) {
      const size_t end = std::min(list.find(',', begin), list.size());
      std::string word = trimmed(std::string_view(list).substr(begin, end - begin));
      begin = end + 1;
      if (word.empty()) continue;
      if (host::utf8_fault(word) != word.npos) {
        host::fail("--forbid: \"{}\" is not UTF-8", host::printable(word));
      }
      if (!pattern.empty()) pattern += '|';
      pattern += pattern_of(word);
      words_.push_back(std::move(word));
    }
  }
  if (words_.empty()) return;
  pattern = fmt::format(R"((?<!\w)(?:{})(?!\w))", pattern);
  constexpr uint32_t kRules = PCRE2_UTF | PCRE2_UCP | PCRE2_CASELESS | PCRE2_MATCH_INVALID_UTF;
  int error = 0;
  size_t at = 0;
  regex_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), kRules,
                             &error, &at, nullptr));
  // Words that are UTF-8 make a sound pattern; only their sheer number can be too much.
  if (!regex_) host::fail("--forbid: {} words are more than can be looked for", words_.size());
}

bool ForbiddenWords::found_in(std::string_view text) const {
  if (!regex_) return false;
  struct FreeMatch {
    void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
  };
  const std::unique_ptr<pcre2_match_data, FreeMatch> match(
      pcre2_match_data_create_from_pattern(regex_.get(), nullptr));
  const int found = pcre2_match(regex_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
                                text.size(), 0, 0, match.get(), nullptr);
  OCELLI_CHECK(found >= 0 || found == PCRE2_ERROR_NOMATCH, "PCRE2 says {}", found);
  return found >= 0;
}

bool is_looping(std::string_view text) {
  const std::string lower = plain(text);
  const std::vector<std::string_view> words = words_of(lower);
  for (size_t circle = 1; circle <= kLongestCircle && circle < words.size(); ++circle) {
    const size_t needed = circle * repeats_allowed(circle);
    size_t alike = 0;  // words on end that are as those one circle before
    for (size_t i = circle; i < words.size() && alike < needed; ++i) {
      alike = words[i] == words[i - circle] ? alike + 1 : 0;
    }
    if (alike == needed) return true;
  }
  return false;
}

bool is_refusal(std::string_view text) {
  const std::string lower = plain(trimmed(text));
  return std::ranges::any_of(kRefusals,
                             [&](std::string_view begin) { return lower.starts_with(begin); }) ||
         std::ranges::any_of(kAdmissions, [&](std::string_view words) {
           return lower.find(words) != std::string::npos;
         });
}

CaptionStatus CaptionGates::judge(std::string_view text, double confidence) const {
  if (words_of(text).empty()) return CaptionStatus::kEmpty;
  if (is_refusal(text)) return CaptionStatus::kRefused;
  if (is_looping(text)) return CaptionStatus::kLooping;
  if (forbidden.found_in(text)) return CaptionStatus::kForbidden;
  if (confidence < min_confidence) return CaptionStatus::kLowConfidence;
  return CaptionStatus::kOk;
}

}  // namespace ocelli::app
