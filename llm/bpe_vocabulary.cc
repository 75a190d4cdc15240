#include "llm/bpe_vocabulary.h"

#include <algorithm>
#include <utility>

#include "host/error.h"

namespace ocelli::llm {
namespace {

using host::fail;
using host::printable;

// The characters of GPT-2's byte map lie below U+0144: bytes that print stand for themselves (as
// Latin-1), the other 68 are numbered from U+0100 on, in order.
constexpr int kMappedCharacters = 0x100 + 68;

constexpr std::array<int, 256> kCharacterOfByte = [] {
  std::array<int, 256> characters{};
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool prints = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
    characters[byte] = prints ? byte : next++;
  }
  return characters;
}();

// The map turned round; -1: no byte.
constexpr std::array<int16_t, kMappedCharacters> kByteOfCharacter = [] {
  std::array<int16_t, kMappedCharacters> bytes{};
  bytes.fill(-1);
  for (int byte = 0; byte < 256; ++byte) bytes[kCharacterOfByte[byte]] = static_cast<int16_t>(byte);
  return bytes;
}();

// Appends the bytes that a token's mapped `text` stands for: `text` itself when a character of it
// is not in the map, as Hugging Face's decoder does.
void append_mapped(std::string_view text, std::string& bytes) {
  const size_t start = bytes.size();
  for (size_t at = 0; at < text.size(); ++at) {
    int character = static_cast<unsigned char>(text[at]);
    if (character >= 0xC2 && character <= 0xC5 && at + 1 < text.size()) {
      character = (character & 0x1F) << 6 | (static_cast<unsigned char>(text[++at]) & 0x3F);
    } else if (character >= 0x80) {
      character = kMappedCharacters;
    }
    const int byte = character < kMappedCharacters ? kByteOfCharacter[character] : -1;
    if (byte < 0) {
      bytes.resize(start);
      bytes += text;
      return;
    }
    bytes += static_cast<char>(byte);
  }
}

// Appends the bytes of a token of Llama's kind.
void append_spaced(std::string_view text, std::string& bytes) {
  if (const std::string_view byte = bytes_of_token(text); byte.size() < text.size()) {
    bytes += byte;
    return;
  }
  append_unmarked(text, bytes);
}

}  // namespace

BpeVocabulary::BpeVocabulary(const BpeFiles& files)
    : files_(files), index_(files.tokens.size() + files.added.size()) {
  if (files.tokens.empty()) fail("{}: the vocabulary has no tokens", files.where);
  int32_t highest = 0;
  for (const auto& token : files.tokens) highest = std::max(highest, token.id);
  for (const auto& token : files.added) highest = std::max(highest, token.id);
  const size_t count = files.tokens.size() + files.added.size();
  by_id_.assign(static_cast<size_t>(highest) + 1, kNone);
  is_own_text_.resize(by_id_.size());
  entries_.reserve(count);
  for (const auto& token : files.tokens) {
    TextIndex::Slot& slot = slot_of(token.text);
    if (slot.number != kNone) {
      fail("{}: the token \"{}\" appears twice", files.where, printable(token.text));
    }
    insert(token, slot);
  }
  collect_added();
}

TextIndex::Slot& BpeVocabulary::slot_of(std::string_view text) {
  return index_.slot_of(text, [this](uint32_t entry) { return entries_[entry].text; });
}

uint32_t BpeVocabulary::entry_of(std::string_view text) const {
  return index_.find(text, [this](uint32_t entry) { return entries_[entry].text; });
}

int32_t BpeVocabulary::id_of(std::string_view text) const {
  const uint32_t entry = entry_of(text);
  return entry == kNone ? -1 : entries_[entry].id;
}

int32_t BpeVocabulary::mapped_id_of(std::string_view text) const {
  const uint32_t entry = entry_of(text);
  if (entry >= files_.tokens.size()) return -1;  // none, or an added token only
  const int32_t id = entries_[entry].id;
  if (is_own_text_[id]) {
    fail(
        "{}: the token \"{}\" is both an added one, which stands for itself, and one of the "
        "merges', "
        "which stands for other bytes",
        files_.where, printable(text));
  }
  return id;
}

void BpeVocabulary::insert(const BpeFiles::Token& token, TextIndex::Slot& slot) {
  uint32_t& entry = by_id_[token.id];
  if (entry != kNone) {
    fail("{}: the id {} is given to both \"{}\" and \"{}\"", files_.where, token.id,
         printable(entries_[entry].text), printable(token.text));
  }
  entry = static_cast<uint32_t>(entries_.size());
  TextIndex::fill(slot, token.text, entry);
  entries_.push_back(token);
}

void BpeVocabulary::collect_added() {
  std::vector<bool> is_added(by_id_.size());
  const auto add = [&](const AddedToken& token) {
    if (!is_added[token.id]) added_.push_back(token);
    is_added[token.id] = true;
    std::string mapped;
    if (!files_.llama) append_mapped(token.text, mapped);
    is_own_text_[token.id] = !files_.llama && mapped != token.text;
  };
  for (const AddedToken& token : files_.added) {
    if (token.text.empty()) continue;  // as Hugging Face does
    const int32_t known = id_of(token.text);
    if (known < 0) insert({token.text, token.id}, slot_of(token.text));
    if (known >= 0 && known != token.id) {
      fail("{}: the token \"{}\" has two ids, {} and {}", files_.where, printable(token.text),
           known, token.id);
    }
    add(token);
  }
  std::vector<bool> is_special(by_id_.size());
  for (const std::string& name : files_.specials) {
    const int32_t id = id_of(name);
    if (id < 0 || name.empty()) continue;  // a name that is no token steers nothing
    is_special[id] = true;
    add({name, id, true, false});
  }
  for (AddedToken& token : added_) token.special = token.special || is_special[token.id];
}

std::array<int32_t, 256> BpeVocabulary::byte_ids() const {
  std::array<int32_t, 256> ids{};
  for (int byte = 0; byte < 256; ++byte) {
    const int character = kCharacterOfByte[byte];
    const char text[] = {static_cast<char>(character < 0x80 ? character : 0xC0 | character >> 6),
                         static_cast<char>(0x80 | (character & 0x3F))};
    ids[byte] = mapped_id_of({text, character < 0x80 ? size_t{1} : size_t{2}});
  }
  return ids;
}

CharacterIds BpeVocabulary::characters() const {
  std::array<int32_t, 256> byte_ids{};
  for (int byte = 0; byte < 256; ++byte) {
    const std::string name = byte_token_name(static_cast<unsigned char>(byte));
    byte_ids[byte] = mapped_id_of(name);
    if (byte_ids[byte] < 0) {
      fail("{}: model.byte_fallback is set, but the vocabulary has no token {}", files_.where,
           name);
    }
  }
  CharacterIds characters(byte_ids);
  for (const auto& token : files_.tokens) characters.add(token.text, token.id);
  return characters;
}

MergeTable BpeVocabulary::merges() const {
  MergeTable table(files_.merges.size());
  std::string text;
  int32_t result = -1;
  for (uint32_t rank = 0; rank < files_.merges.size(); ++rank) {
    const auto& merge = files_.merges[rank];
    const int32_t left = mapped_id_of(merge.left);
    const int32_t right = mapped_id_of(merge.right);
    result = joined_id(merge, result + 1, text);
    for (const auto& [id, name] :
         {std::pair{left, merge.left}, {right, merge.right}, {result, std::string_view(text)}}) {
      if (id >= 0) continue;
      fail("{}: merge {} (\"{}\" + \"{}\") names \"{}\", which is not in the vocabulary",
           files_.where, rank + 1, printable(merge.left), printable(merge.right), printable(name));
    }
    table.add({left, right, result});
  }
  return table;
}

// The merges of most vocabularies make their tokens in the order of their ids: the id after the
// previous merge's is tried first, which spares the start of the program 50,000 look-ups.
int32_t BpeVocabulary::joined_id(const BpeFiles::Merge& merge, int32_t guess,
                                 std::string& text) const {
  text = merge.left;
  text += merge.right;
  if (guess < size() && by_id_[guess] < files_.tokens.size() && !is_own_text_[guess] &&
      entries_[by_id_[guess]].text == text) {
    return guess;
  }
  return mapped_id_of(text);
}

TokenBytes BpeVocabulary::token_bytes() const {
  size_t total = 0;
  for (const auto& entry : entries_) total += entry.text.size();
  TokenBytes tokens;
  tokens.reserve(by_id_.size(), total);
  std::string bytes;
  for (size_t id = 0; id < by_id_.size(); ++id) {
    const uint32_t entry = by_id_[id];
    bytes.clear();
    if (entry != kNone && files_.llama) {
      append_spaced(entries_[entry].text, bytes);
    } else if (entry < files_.tokens.size() && !is_own_text_[id]) {
      append_mapped(entries_[entry].text, bytes);
    } else if (entry != kNone) {
      bytes += entries_[entry].text;
    }
    tokens.add(bytes);
  }
  return tokens;
}

}  // namespace ocelli::llm
