#include "llm/bpe.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>

#include "host/error.h"
#include "host/utf8.h"
#include "llm/bpe_vocabulary.h"

namespace ocelli::llm {

using host::fail;

// What one call of encode() works in.
struct BpeTokenizer::Workspace {
  // A token of the word so far; joining two leaves the left one, and the right one's id at -1.
  struct Symbol {
    int32_t id;
    int32_t previous;  // places in `symbols`, -1 at the ends
    int32_t next;
  };
  std::vector<std::string_view> words;
  std::vector<Symbol> symbols;
  // Pairs that can be joined, rank << 32 | place of the left one, as a heap with the lowest on top.
  // An entry whose pair has changed since is left in it and passed over.
  std::vector<uint64_t> pairs;
  std::vector<int32_t> ids;  // the result
};

BpeTokenizer::BpeTokenizer(const BpeFiles& files) : BpeTokenizer(files, BpeVocabulary(files)) {
}

BpeTokenizer::BpeTokenizer(const BpeFiles& files, const BpeVocabulary& vocabulary)
    : byte_ids_(vocabulary.byte_ids()), merges_(vocabulary.merges()) {
  vocabulary.append_bytes(bytes_, ends_);
  std::vector<AddedToken> first;
  std::vector<AddedToken> then;
  for (const AddedToken& token : vocabulary.added()) {
    (token.normalized ? then : first).push_back(token);
    if (token.special) specials_.push_back(token.id);
  }
  first_added_ = AddedTokenFinder(std::move(first));
  then_added_ = AddedTokenFinder(std::move(then));
  std::sort(specials_.begin(), specials_.end());
  const bool named = !files.eos.empty();
  eos_ = vocabulary.id_of(named ? files.eos : kDefaultSpecial);
  if (named && eos_ < 0) {
    fail("{}: the token that ends an answer, \"{}\", is not in the vocabulary", files.where,
         host::printable(files.eos));
  }
}

std::string_view BpeTokenizer::token_bytes(int32_t id) const {
  if (id < 0 || id >= size()) return {};
  const uint32_t begin = id == 0 ? 0 : ends_[id - 1];
  return std::string_view(bytes_).substr(begin, ends_[id] - begin);
}

bool BpeTokenizer::is_special(int32_t id) const {
  return std::binary_search(specials_.begin(), specials_.end(), id);
}

std::vector<int32_t> BpeTokenizer::encode(std::string_view text, SpecialTokens special) const {
  if (const size_t fault = host::utf8_fault(text); fault != text.npos) {
    fail("the text is not valid UTF-8: byte {} (0x{:02x}) does not belong; convert it to UTF-8",
         fault, static_cast<unsigned char>(text[fault]));
  }
  if (text.size() > std::numeric_limits<int32_t>::max()) {
    fail("the text has {} bytes, more than a tokenizer takes at once", text.size());
  }
  const bool specials = special == SpecialTokens::kParse;
  Workspace work;
  split_at(first_added_, text, specials, work, [&](std::string_view between) {
    split_at(then_added_, between, specials, work,
             [&](std::string_view words) { encode_words(words, work); });
  });
  return std::move(work.ids);
}

template <typename Encode>
void BpeTokenizer::split_at(const AddedTokenFinder& finder, std::string_view text, bool specials,
                            Workspace& work, const Encode& encode_between) {
  for (size_t from = 0; from < text.size();) {
    const auto [at, length, id] = finder.find(text, from, specials);
    encode_between(text.substr(from, std::min(at, text.size()) - from));
    if (id < 0) return;
    work.ids.push_back(id);
    from = at + length;
  }
}

void BpeTokenizer::encode_words(std::string_view text, Workspace& work) const {
  if (text.empty()) return;
  pre_tokenizer_.split(text, work.words);
  for (const std::string_view word : work.words) encode_word(word, work);
}

// O(n log n) in the length of the word: a pair is found in the heap and joined in a linked list.
void BpeTokenizer::encode_word(std::string_view word, Workspace& work) const {
  auto& symbols = work.symbols;
  auto& pairs = work.pairs;
  start_word(word, work);
  while (!pairs.empty()) {
    std::pop_heap(pairs.begin(), pairs.end(), std::greater<>());
    const auto rank = static_cast<uint32_t>(pairs.back() >> 32);
    const auto place = static_cast<int32_t>(pairs.back() & 0xFFFFFFFF);
    pairs.pop_back();
    Workspace::Symbol& left = symbols[place];
    if (left.id < 0 || left.next < 0) continue;
    Workspace::Symbol& right = symbols[left.next];
    if (merges_.rank(left.id, right.id) != rank) continue;
    left.id = merges_.result(rank);
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].previous = place;
    for (const int32_t changed : {left.previous, place}) {
      if (changed >= 0 && push_pair(changed, work)) {
        std::push_heap(pairs.begin(), pairs.end(), std::greater<>());
      }
    }
  }
  for (int32_t place = 0; place >= 0; place = symbols[place].next) {
    work.ids.push_back(symbols[place].id);
  }
}

// One symbol a byte, and the heap of the pairs that can be joined.
void BpeTokenizer::start_word(std::string_view word, Workspace& work) const {
  work.symbols.clear();
  work.pairs.clear();
  const auto length = static_cast<int32_t>(word.size());
  for (int32_t i = 0; i < length; ++i) {
    const auto byte = static_cast<unsigned char>(word[i]);
    if (byte_ids_[byte] < 0) {
      fail("the vocabulary has no token for the byte 0x{:02x} in \"{}\"", byte,
           host::printable(word));
    }
    work.symbols.push_back({byte_ids_[byte], i - 1, i + 1 < length ? i + 1 : -1});
  }
  for (int32_t i = 0; i + 1 < length; ++i) push_pair(i, work);
  std::make_heap(work.pairs.begin(), work.pairs.end(), std::greater<>());
}

bool BpeTokenizer::push_pair(int32_t left, Workspace& work) const {
  const Workspace::Symbol& symbol = work.symbols[left];
  if (symbol.next < 0) return false;
  const uint32_t rank = merges_.rank(symbol.id, work.symbols[symbol.next].id);
  if (rank == MergeTable::kNone) return false;
  work.pairs.push_back(uint64_t{rank} << 32 | static_cast<uint32_t>(left));
  return true;
}

}  // namespace ocelli::llm
