#include "llm/bpe.h"

#include <algorithm>
#include <utility>

#include "host/error.h"
#include "llm/bpe_vocabulary.h"
#include "llm/pair_merger.h"

namespace ocelli::llm {
namespace {

std::unique_ptr<const BpeAlphabet> alphabet_of(const BpeFiles& files,
                                               const BpeVocabulary& vocabulary) {
  if (!files.llama) return std::make_unique<ByteAlphabet>(vocabulary.byte_ids());
  return std::make_unique<LlamaAlphabet>(*files.llama, vocabulary.characters());
}

// The id of the token `name`, or of `otherwise` when the files name none; -1 when that is missing.
int32_t named_id(const BpeFiles& files, const BpeVocabulary& vocabulary, const std::string& name,
                 std::string_view otherwise, std::string_view purpose) {
  const int32_t id = vocabulary.id_of(name.empty() ? otherwise : name);
  if (id < 0 && !name.empty()) {
    host::fail("{}: the token that {}, \"{}\", is not in the vocabulary", files.where, purpose,
               host::printable(name));
  }
  return id;
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

BpeTokenizer::BpeTokenizer(const BpeFiles& files) : BpeTokenizer(files, BpeVocabulary(files)) {
}

BpeTokenizer::BpeTokenizer(const BpeFiles& files, const BpeVocabulary& vocabulary)
    : tokens_(vocabulary.token_bytes()),
      merges_(vocabulary.merges()),
      alphabet_(alphabet_of(files, vocabulary)) {
  collect_added(vocabulary.added());
  if (files.llama) bos_ = named_id(files, vocabulary, files.bos, kLlamaBos, "begins a text");
  eos_ = named_id(files, vocabulary, files.eos, files.llama ? kLlamaEos : kDefaultSpecial,
                  "ends an answer");
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
