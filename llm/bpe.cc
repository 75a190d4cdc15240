#include "llm/bpe.h"

#include <algorithm>
#include <utility>

#include "llm/pair_merger.h"

namespace ocelli::llm {
namespace {

std::unique_ptr<const BpeAlphabet> alphabet_of(BpeParts& parts) {
  if (!parts.llama) return std::make_unique<ByteAlphabet>(parts.byte_ids);
  return std::make_unique<LlamaAlphabet>(*parts.llama, std::move(parts.characters));
}

bool is_in(const std::vector<int32_t>& sorted, int32_t id) {
  return std::binary_search(sorted.begin(), sorted.end(), id);
}

}  // namespace

// What one call of encode() works in.
struct BpeTokenizer::Workspace {
  std::string normalized;  // a stretch between added tokens
  std::string spaced;      // its part between normalized added tokens, as it was split
  std::vector<std::string_view> words;
  std::vector<int32_t> tokens;  // of a word, before the merges
  PairMerger merger;
  std::vector<int32_t> ids;  // the result
};

BpeTokenizer::BpeTokenizer(BpeParts parts)
    : tokens_(std::move(parts.tokens)),
      merges_(std::move(parts.merges)),
      alphabet_(alphabet_of(parts)),
      bos_(parts.bos),
      eos_(parts.eos) {
  collect_added(parts.added);
}

void BpeTokenizer::collect_added(const std::vector<AddedToken>& added) {
  std::vector<AddedToken> first;
  std::vector<AddedToken> then;
  std::string buffer;
  for (const AddedToken& token : added) {
    added_.push_back(token.id);
    if (token.special) specials_.push_back(token.id);
    if (!token.normalized) {
      first.push_back(token);
      continue;
    }
    // As Hugging Face does: what is looked for in normalized text is itself normalized.
    then.push_back(token);
    then.back().text = alphabet_->normalize(token.text, buffer);
  }
  first_added_ = AddedTokenFinder(std::move(first));
  then_added_ = AddedTokenFinder(std::move(then));
  std::sort(added_.begin(), added_.end());
  std::sort(specials_.begin(), specials_.end());
}

bool BpeTokenizer::is_special(int32_t id) const {
  return is_in(specials_, id);
}

bool BpeTokenizer::adds_space_after(int32_t previous) const {
  const Prepend prepend = alphabet_->adds_space();
  if (prepend == Prepend::kNever) return false;
  if (previous < 0 || previous == bos_) return true;
  return prepend == Prepend::kAlways && is_in(added_, previous);
}

std::vector<int32_t> BpeTokenizer::encode(std::string_view text, SpecialTokens special) const {
  require_text(text);
  const bool specials = special == SpecialTokens::kParse;
  Workspace work;
  const auto add = [&](int32_t id) { work.ids.push_back(id); };
  const auto encode_stretch = [&](std::string_view stretch) {
    const bool begins = stretch.data() == text.data();
    const std::string_view normalized = alphabet_->normalize(stretch, work.normalized);
    const auto encode_rest = [&](std::string_view rest) {
      encode_words(rest, begins && rest.data() == normalized.data(), work);
    };
    then_added_.split(normalized, specials, encode_rest, add);
  };
  first_added_.split(text, specials, encode_stretch, add);
  return std::move(work.ids);
}

void BpeTokenizer::encode_words(std::string_view text, bool begins_text, Workspace& work) const {
  const auto join = [this](int32_t left, int32_t right) -> Join {
    const uint32_t rank = merges_.rank(left, right);
    if (rank == MergeTable::kNone) return {};
    return {rank, merges_.result(rank)};
  };
  alphabet_->split(text, begins_text, work.spaced, work.words);
  for (const std::string_view word : work.words) {
    alphabet_->start(word, work.tokens);
    work.merger.merge(work.tokens, join, work.ids);
  }
}

}  // namespace ocelli::llm
