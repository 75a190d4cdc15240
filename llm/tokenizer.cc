#include "llm/tokenizer.h"

#include "llm/bpe.h"
#include "llm/bpe_files.h"

namespace ocelli::llm {

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  for (const int32_t id : ids) text += token_bytes(id);
  return text;
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path) {
  return std::make_unique<BpeTokenizer>(read_bpe_files(path));
}

}  // namespace ocelli::llm
