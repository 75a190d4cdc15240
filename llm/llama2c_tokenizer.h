// The tokenizer.bin of llama2.c (MODEL.md §9): pieces with scores, as its run.c encodes with them.
//
// The file: int32 max_token_length; then for each piece its float32 score, its int32 length and its
// bytes, to the end of the file; all little-endian. Piece 0 is the unknown token, 1 begins and 2
// ends a text, 3…258 are the bytes <0x00>…<0xFF>.
//
// Text becomes a space that is not its own (unless it is empty), then a piece a character, or its
// bytes where there is none; then the two neighbours whose joined text is the piece with the
// highest score become that piece, the leftmost of equals, until none do. Where run.c leaves things
// open: of pieces with the same text the one with the lowest id is taken, and text may hold NUL.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llm/character_ids.h"
#include "llm/pair_merger.h"
#include "llm/text_index.h"
#include "llm/token_bytes.h"
#include "llm/tokenizer.h"

namespace ocelli::llm {

class Llama2cTokenizer final : public Tokenizer {
 public:
  // Reads the bytes of a whole file. Throws host::Error that begins with `where` when a piece is
  // cut off, a length or a score makes no sense, or the pieces of bytes or of the space are not
  // there.
  Llama2cTokenizer(std::span<const std::byte> file, const std::string& where);

  // No control token's name is parsed in text, whatever `special` says: run.c parses none.
  std::vector<int32_t> encode(std::string_view text, SpecialTokens special) const override;
  // A piece of the form <0xNN> is that byte. The names of 1 and 2 are "\n<s>\n" and "\n</s>\n" in
  // the published file; run.c prints them like any other piece.
  std::string_view token_bytes(int32_t id) const override { return bytes_of_token(pieces_[id]); }
  int size() const override { return pieces_.size(); }
  int32_t bos() const override { return kBos; }
  // Llama2.c's stories are trained end to end, each behind the token that begins a text, and run.c
  // stops where the model begins the next one.
  int32_t eos() const override { return kBos; }
  bool is_special(int32_t id) const override { return id >= 0 && id <= kEnd; }

 private:
  static constexpr int32_t kBos = 1;
  static constexpr int32_t kEnd = 2;

  bool adds_space_after(int32_t previous) const override {
    return previous < 0 || previous == kBos;
  }

  // Fills pieces_ and scores_.
  void read_pieces(std::span<const std::byte> file, const std::string& where);
  // The piece with this text, -1 when there is none.
  int32_t find(std::string_view text) const;
  void index_pieces();
  // The pieces of the bytes; throws host::Error when one is not where it belongs.
  CharacterIds characters(const std::string& where) const;
  Join join(int32_t left, int32_t right, std::string& text) const;

  TokenBytes pieces_;
  std::vector<float> scores_;
  size_t longest_ = 0;  // bytes of the longest piece
  TextIndex index_{0};
  CharacterIds characters_;
  int32_t space_ = -1;
};

}  // namespace ocelli::llm
