// Feeds any bytes to the readers of vocabularies and, with what they accept, encodes text: each
// file must be refused with host::Error or give a tokenizer whose ids decode to the text again
// (those of a byte-level vocabulary: one of Llama's kind has more than one way to write a text).
//
// The input is tokenizer.json, a line "@@", and the text; with two such lines it is vocab.json,
// merges.txt and the text.
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "host/error.h"
#include "llm/bpe.h"
#include "llm/bpe_files.h"
#include "llm/prompt.h"
#include "llm/utf8_stream.h"

namespace {

using namespace ocelli;  // NOLINT(google-build-using-namespace): a program of one file

constexpr std::string_view kMarker = "\n@@\n";

std::vector<std::string_view> split(std::string_view input) {
  std::vector<std::string_view> parts;
  for (size_t at = input.find(kMarker); at != input.npos && parts.size() < 2;
       at = input.find(kMarker)) {
    parts.push_back(input.substr(0, at));
    input.remove_prefix(at + kMarker.size());
  }
  parts.push_back(input);
  return parts;
}

// Whatever the tokens of a byte-level vocabulary are, their bytes are those of the text.
void check(const llm::BpeTokenizer& tokenizer, std::string_view text, bool byte_level) {
  for (const auto special : {llm::SpecialTokens::kParse, llm::SpecialTokens::kPlain}) {
    const auto ids = tokenizer.encode(text, special);
    llm::Utf8Stream stream;
    std::string decoded;
    for (const int32_t id : ids) {
      OCELLI_CHECK(id >= 0 && id < tokenizer.size(), "{} of {}", id, tokenizer.size());
      decoded += stream.push(tokenizer.token_bytes(id));
    }
    decoded += stream.flush();
    OCELLI_CHECK(decoded == text || !byte_level, "\"{}\" for \"{}\"", host::printable(decoded),
                 host::printable(text));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = split({reinterpret_cast<const char*>(data), size});
  try {
    llm::BpeFiles files;
    files.where = "fuzz";
    if (parts.size() < 3) {
      llm::parse_tokenizer_json(parts[0], "fuzz", files);
    } else {
      llm::parse_vocab_json(parts[0], "fuzz", files);
      llm::parse_merges(parts[1], "fuzz", files);
    }
    files.specials.emplace_back(llm::kDefaultSpecial);
    check(llm::BpeTokenizer(files), parts.back(), !files.llama);
  } catch (const host::Error&) {  // the one way to refuse
  }
  return 0;
}
