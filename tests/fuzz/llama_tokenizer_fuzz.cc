// Feeds any bytes to the readers of tokenizer.bin and tokenizer.model and, with what they accept,
// encodes text: each file must be refused with host::Error or give a tokenizer whose ids are in
// range, and for a tokenizer.bin those of llama2.c's own loop.
//
// The input: 'b' or 'm' for the kind of file; a byte, the length of the text (its low 6 bits); the
// text; the file. A tokenizer.json of Llama's kind goes through tokenizer_fuzz.cc.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "host/error.h"
#include "llm/llama2c_tokenizer.h"
#include "llm/sentencepiece_tokenizer.h"
#include "tests/llm/llama2c_vocabulary.h"

namespace {

using namespace ocelli;  // NOLINT(google-build-using-namespace): a program of one file

std::vector<int32_t> check_ids(const llm::Tokenizer& tokenizer, std::string_view text) {
  for (const auto special : {llm::SpecialTokens::kParse, llm::SpecialTokens::kPlain}) {
    const auto ids = tokenizer.encode(text, special);
    for (const int32_t id : ids) {
      OCELLI_CHECK(id >= 0 && id < tokenizer.size(), "{} of {}", id, tokenizer.size());
    }
    tokenizer.decode(ids);
  }
  return tokenizer.encode(text, llm::SpecialTokens::kPlain);
}

// The pieces of a file that was accepted.
std::vector<llm::Llama2cPiece> pieces_of(std::string_view file) {
  std::vector<llm::Llama2cPiece> pieces;
  file.remove_prefix(4);
  while (!file.empty()) {
    llm::Llama2cPiece& piece = pieces.emplace_back();
    int32_t length = 0;
    std::memcpy(&piece.score, file.data(), 4);
    std::memcpy(&length, file.data() + 4, 4);
    piece.text = file.substr(8, length);
    file.remove_prefix(8 + length);
  }
  return pieces;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  std::string_view rest(reinterpret_cast<const char*>(data) + 2, size - 2);
  const std::string_view text = rest.substr(0, data[1] & 0x3F);
  rest.remove_prefix(text.size());
  const auto file = std::as_bytes(std::span(rest));
  try {
    if (data[0] == 'm') {
      check_ids(llm::SentencepieceTokenizer(file, "fuzz"), text);
    } else if (data[0] == 'b') {
      const auto ids = check_ids(llm::Llama2cTokenizer(file, "fuzz"), text);
      OCELLI_CHECK(ids == llm::naive_llama2c_ids(pieces_of(rest), text), "other ids for \"{}\"",
                   host::printable(text));
    }
  } catch (const host::Error&) {  // the one way to refuse
  }
  return 0;
}
