#include "llm/bpe_parts.h"

#include <cstring>
#include <type_traits>
#include <utility>

#include "host/error.h"
#include "host/utf8.h"
#include "llm/bpe_vocabulary.h"

namespace ocelli::llm {
namespace {

using host::fail;

// The id of the token `name`, or of `otherwise` when the files name none; -1 when that is missing.
int32_t named_id(const BpeFiles& files, const BpeVocabulary& vocabulary, const std::string& name,
                 std::string_view otherwise, std::string_view purpose) {
  const int32_t id = vocabulary.id_of(name.empty() ? otherwise : name);
  if (id < 0 && !name.empty()) {
    fail("{}: the token that {}, \"{}\", is not in the vocabulary", files.where, purpose,
         host::printable(name));
  }
  return id;
}

// The numbers that the packed form begins with.
struct Head {
  uint32_t tokens = 0;
  uint32_t token_bytes = 0;
  uint32_t merges = 0;
  uint32_t characters = 0;  // Llama's kind only
  uint32_t added = 0;
  uint32_t flags = 0;
  int32_t bos = -1;
  int32_t eos = -1;
};

// Flags of the head.
constexpr uint32_t kLlama = 1;
constexpr uint32_t kPrepends = 2;
constexpr uint32_t kReplaces = 4;
constexpr uint32_t kMetaspace = 8;
constexpr uint32_t kMetaspaceSplit = 16;
constexpr uint32_t kPrependAt = 5;  // two bits: the Prepend of the Metaspace
constexpr uint32_t kFlagBits = 7;
// Flags of an added token.
constexpr uint32_t kSpecial = 1;
constexpr uint32_t kNormalized = 2;

struct AddedHead {
  int32_t id = -1;
  uint32_t flags = 0;
  uint32_t bytes = 0;
};

template <typename T>
void append(std::string& out, const T* values, size_t count) {
  static_assert(std::is_trivially_copyable_v<T>);
  out.append(reinterpret_cast<const char*>(values), count * sizeof(T));
}

uint32_t flags_of(const std::optional<LlamaRules>& rules) {
  if (!rules) return 0;
  uint32_t flags = kLlama;
  if (rules->prepends) flags |= kPrepends;
  if (rules->replaces) flags |= kReplaces;
  if (rules->metaspace) {
    flags |= kMetaspace | static_cast<uint32_t>(rules->metaspace->prepend) << kPrependAt;
    if (rules->metaspace->split) flags |= kMetaspaceSplit;
  }
  return flags;
}

// Takes values from the front of the bytes, within them.
class Reader {
 public:
  Reader(std::span<const std::byte> bytes, std::string where)
      : bytes_(bytes), where_(std::move(where)) {}

  template <typename T>
  void take(T* values, uint64_t count) {
    static_assert(std::is_trivially_copyable_v<T>);
    if (count > bytes_.size() / sizeof(T)) fail("{}: the vocabulary is cut off", where_);
    if (count > 0) std::memcpy(values, bytes_.data(), count * sizeof(T));
    bytes_ = bytes_.subspan(count * sizeof(T));
  }
  // As many, in memory that is not asked for before they are known to be there.
  template <typename T>
  std::vector<T> take(uint64_t count) {
    if (count > bytes_.size() / sizeof(T)) fail("{}: the vocabulary is cut off", where_);
    std::vector<T> values(count);
    take(values.data(), count);
    return values;
  }
  std::string take_text(uint64_t count) {
    if (count > bytes_.size()) fail("{}: the vocabulary is cut off", where_);
    std::string text(reinterpret_cast<const char*>(bytes_.data()), count);
    bytes_ = bytes_.subspan(count);
    return text;
  }
  void require(bool sound, const char* what) const {
    if (!sound) fail("{}: the vocabulary is damaged: {}", where_, what);
  }
  void finish() const { require(bytes_.empty(), "bytes after its end"); }

 private:
  std::span<const std::byte> bytes_;
  std::string where_;
};

std::optional<LlamaRules> rules_of(uint32_t flags, const Reader& reader) {
  reader.require(flags >> kFlagBits == 0, "unknown flags");
  if ((flags & kLlama) == 0) {
    reader.require(flags == 0, "rules of Llama's kind in another");
    return std::nullopt;
  }
  LlamaRules rules;
  rules.prepends = (flags & kPrepends) != 0;
  rules.replaces = (flags & kReplaces) != 0;
  const uint32_t prepend = flags >> kPrependAt;
  reader.require(prepend <= static_cast<uint32_t>(Prepend::kAlways), "an unknown rule for spaces");
  if ((flags & kMetaspace) != 0) {
    rules.metaspace = {static_cast<Prepend>(prepend), (flags & kMetaspaceSplit) != 0};
  }
  return rules;
}

TokenBytes take_tokens(const Head& head, Reader& reader) {
  std::vector<uint32_t> ends = reader.take<uint32_t>(head.tokens);
  uint32_t last = 0;
  bool ascending = true;
  for (const uint32_t end : ends) {
    ascending = ascending && last <= end;
    last = end;
  }
  reader.require(ascending && last == head.token_bytes, "its tokens' ends");
  return {reader.take_text(head.token_bytes), std::move(ends)};
}

}  // namespace

BpeParts make_bpe_parts(const BpeFiles& files) {
  const BpeVocabulary vocabulary(files);
  BpeParts parts;
  parts.tokens = vocabulary.token_bytes();
  parts.merges = vocabulary.merges();
  parts.llama = files.llama;
  if (files.llama) {
    parts.characters = vocabulary.characters();
    parts.bos = named_id(files, vocabulary, files.bos, kLlamaBos, "begins a text");
  } else {
    parts.byte_ids = vocabulary.byte_ids();
  }
  parts.added = vocabulary.added();
  parts.eos = named_id(files, vocabulary, files.eos, files.llama ? kLlamaEos : kDefaultSpecial,
                       "ends an answer");
  return parts;
}

std::string pack_bpe(const BpeParts& parts) {
  const std::vector<CharacterIds::Character> characters =
      parts.llama ? parts.characters.characters() : std::vector<CharacterIds::Character>();
  const auto& byte_ids = parts.llama ? parts.characters.byte_ids() : parts.byte_ids;
  const auto size = [](const auto& list) { return static_cast<uint32_t>(list.size()); };
  const Head head = {size(parts.tokens.ends()),
                     size(parts.tokens.bytes()),
                     size(parts.merges.merges()),
                     size(characters),
                     size(parts.added),
                     flags_of(parts.llama),
                     parts.bos,
                     parts.eos};
  std::string out;
  append(out, &head, 1);
  append(out, byte_ids.data(), byte_ids.size());
  append(out, parts.merges.merges().data(), head.merges);
  append(out, characters.data(), head.characters);
  append(out, parts.tokens.ends().data(), head.tokens);
  out += parts.tokens.bytes();
  for (const AddedToken& token : parts.added) {
    const AddedHead added = {token.id,
                             (token.special ? kSpecial : 0) | (token.normalized ? kNormalized : 0),
                             size(token.text)};
    append(out, &added, 1);
    out += token.text;
  }
  return out;
}

BpeParts unpack_bpe(std::span<const std::byte> bytes, const std::string& where) {
  Reader reader(bytes, where);
  Head head;
  reader.take(&head, 1);
  reader.require(head.tokens > 0 && head.tokens <= kMaxTokenId + 1, "its number of tokens");
  const auto count = static_cast<int32_t>(head.tokens);
  const auto is_id = [count](int32_t id) { return id >= 0 && id < count; };
  const auto is_id_or_none = [count](int32_t id) { return id >= -1 && id < count; };
  BpeParts parts;
  parts.bos = head.bos;
  parts.eos = head.eos;
  reader.require(is_id_or_none(head.bos) && is_id_or_none(head.eos), "the ends of its texts");
  parts.llama = rules_of(head.flags, reader);
  reader.take(parts.byte_ids.data(), parts.byte_ids.size());
  for (const int32_t id : parts.byte_ids) {
    reader.require(parts.llama ? is_id(id) : is_id_or_none(id), "the token of a byte");
  }
  const auto merges = reader.take<MergeTable::Merge>(head.merges);
  parts.merges = MergeTable(merges.size());
  for (const MergeTable::Merge& merge : merges) {
    reader.require(is_id(merge.left) && is_id(merge.right) && is_id(merge.result), "a merge");
    parts.merges.add(merge);
  }
  reader.require(parts.llama || head.characters == 0, "characters of Llama's kind in another");
  if (parts.llama) parts.characters = CharacterIds(parts.byte_ids);
  for (const auto& character : reader.take<CharacterIds::Character>(head.characters)) {
    reader.require(is_id(character.id), "the token of a character");
    parts.characters.add(character);
  }
  parts.tokens = take_tokens(head, reader);
  for (uint32_t i = 0; i < head.added; ++i) {
    AddedHead added;
    reader.take(&added, 1);
    const std::string text = reader.take_text(added.bytes);
    // Text is cut at added tokens, and what is left must be whole characters.
    const bool is_text = !text.empty() && host::utf8_fault(text) == std::string::npos;
    reader.require(is_id(added.id) && is_text && added.flags <= (kSpecial | kNormalized),
                   "an added token");
    parts.added.push_back(
        {text, added.id, (added.flags & kSpecial) != 0, (added.flags & kNormalized) != 0});
  }
  reader.finish();
  return parts;
}

}  // namespace ocelli::llm
