#include "llm/llama2c_tokenizer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "host/error.h"

namespace ocelli::llm {
namespace {

using host::fail;
using host::printable;

constexpr int32_t kFirstByte = 3;  // the piece of the byte 0
constexpr size_t kPieceHead = sizeof(float) + sizeof(int32_t);
// run.c looks for a score above this one, so that a piece at or below it is never made.
constexpr float kWorstScore = -1e10F;

template <typename T>
T value_at(std::span<const std::byte> file, size_t at) {
  T value;
  std::memcpy(&value, file.data() + at, sizeof value);
  return value;
}

// The rank of a score above kWorstScore: the higher the score, the lower the rank.
uint32_t rank_of(float score) {
  const auto bits = std::bit_cast<uint32_t>(score == 0 ? 0.0F : score);  // −0 equals 0
  return score < 0 ? bits : 0x7FFFFFFF - bits;
}

}  // namespace

Llama2cTokenizer::Llama2cTokenizer(std::span<const std::byte> file, const std::string& where) {
  read_pieces(file, where);
  index_pieces();
  characters_ = characters(where);
  space_ = find(" ");
  if (space_ < 0) fail("{}: has no piece for the space, which every text begins with", where);
}

void Llama2cTokenizer::read_pieces(std::span<const std::byte> file, const std::string& where) {
  if (file.size() < sizeof(int32_t)) {
    fail("{}: has {} bytes, too few for a tokenizer.bin", where, file.size());
  }
  const auto limit = value_at<int32_t>(file, 0);
  if (limit <= 0) fail("{}: max_token_length is {}, wanted at least 1", where, limit);
  for (size_t at = sizeof limit; at < file.size();) {
    const int32_t id = pieces_.size();
    if (file.size() - at < kPieceHead) fail("{}: ends within the head of piece {}", where, id);
    const auto score = value_at<float>(file, at);
    const auto length = value_at<int32_t>(file, at + sizeof score);
    at += kPieceHead;
    if (std::isnan(score)) fail("{}: the score of piece {} is not a number", where, id);
    if (length < 0 || length > limit) {
      fail("{}: piece {} has a length of {} bytes, wanted 0 to max_token_length, {}", where, id,
           length, limit);
    }
    if (file.size() - at < static_cast<size_t>(length)) {
      fail("{}: piece {} has {} bytes, but only {} are left in the file", where, id, length,
           file.size() - at);
    }
    pieces_.add({reinterpret_cast<const char*>(file.data()) + at, static_cast<size_t>(length)});
    scores_.push_back(score);
    longest_ = std::max(longest_, static_cast<size_t>(length));
    at += length;
  }
  if (pieces_.size() == 0) fail("{}: the vocabulary has no pieces", where);
}

void Llama2cTokenizer::index_pieces() {
  index_ = TextIndex(pieces_.size());
  for (int32_t id = 0; id < pieces_.size(); ++id) {
    TextIndex::Slot& slot =
        index_.slot_of(pieces_[id], [this](uint32_t number) { return pieces_[number]; });
    if (slot.number == TextIndex::kNone) TextIndex::fill(slot, pieces_[id], id);
  }
}

int32_t Llama2cTokenizer::find(std::string_view text) const {
  if (text.size() > longest_) return -1;
  const uint32_t found = index_.find(text, [this](uint32_t number) { return pieces_[number]; });
  return found == TextIndex::kNone ? -1 : static_cast<int32_t>(found);
}

CharacterIds Llama2cTokenizer::characters(const std::string& where) const {
  std::array<int32_t, 256> byte_ids{};
  for (int byte = 0; byte < 256; ++byte) {
    const int32_t id = byte_ids[byte] = kFirstByte + byte;
    const std::string_view piece = token_bytes(id);
    if (piece.size() == 1 && static_cast<unsigned char>(piece[0]) == byte) continue;
    const std::string name = byte_token_name(static_cast<unsigned char>(byte));
    if (id >= size()) fail("{}: ends before the piece {}, {}", where, id, name);
    fail("{}: piece {} is \"{}\", wanted {}: text that has no piece of its own is written in bytes",
         where, id, printable(pieces_[id]), name);
  }
  CharacterIds characters(byte_ids);
  for (int32_t id = 0; id < size(); ++id) characters.add(pieces_[id], id);
  return characters;
}

Join Llama2cTokenizer::join(int32_t left, int32_t right, std::string& text) const {
  text = pieces_[left];
  text += pieces_[right];
  const int32_t id = find(text);
  if (id < 0 || scores_[id] <= kWorstScore) return {};
  return {rank_of(scores_[id]), id};
}

std::vector<int32_t> Llama2cTokenizer::encode(std::string_view text,
                                              SpecialTokens /*special*/) const {
  require_text(text);
  if (text.empty()) return {};
  std::vector<int32_t> tokens = {space_};
  characters_.append(text, tokens);
  std::vector<int32_t> ids;
  std::string joined;
  PairMerger().merge(
      tokens, [&](int32_t left, int32_t right) { return join(left, right, joined); }, ids);
  return ids;
}

}  // namespace ocelli::llm
