#include "llm/tokenizer.h"

#include <system_error>

#include "host/error.h"
#include "host/mapped_file.h"
#include "host/utf8.h"
#include "llm/bpe.h"
#include "llm/bpe_files.h"
#include "llm/llama2c_tokenizer.h"
#include "llm/sentencepiece_tokenizer.h"

namespace ocelli::llm {
namespace {

namespace fs = std::filesystem;
using host::fail;

constexpr size_t kMaxTextBytes = 1 << 30;

// Reads a tokenizer.bin or tokenizer.model.
template <typename Kind>
std::unique_ptr<Tokenizer> load(const fs::path& path) {
  const host::MappedFile file(path);
  if (file.bytes().size() > kMaxVocabularyBytes) {
    fail("{}: has {} bytes, more than the {} that a vocabulary may have", path.string(),
         file.bytes().size(), kMaxVocabularyBytes);
  }
  return std::make_unique<Kind>(file.bytes(), path.string());
}

std::unique_ptr<Tokenizer> load_bpe(const fs::path& path) {
  return std::make_unique<BpeTokenizer>(read_bpe_files(path));
}

std::unique_ptr<Tokenizer> load_directory(const fs::path& directory) {
  const auto has = [&](const char* name) {
    std::error_code ignored;
    return fs::exists(directory / name, ignored);
  };
  const bool has_bpe = has("tokenizer.json") || (has("vocab.json") && has("merges.txt"));
  if (!has_bpe && has("tokenizer.model")) {
    return load<SentencepieceTokenizer>(directory / "tokenizer.model");
  }
  if (!has_bpe && has("tokenizer.bin")) return load<Llama2cTokenizer>(directory / "tokenizer.bin");
  return load_bpe(directory);  // which says what is missing
}

}  // namespace

std::string_view Tokenizer::text_bytes(int32_t previous, int32_t id) const {
  std::string_view bytes = token_bytes(id);
  if (bytes.starts_with(' ') && adds_space_after(previous)) bytes.remove_prefix(1);
  return bytes;
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  int32_t previous = -1;
  for (const int32_t id : ids) {
    text += text_bytes(previous, id);
    previous = id;
  }
  return text;
}

void Tokenizer::require_text(std::string_view text) {
  if (const size_t fault = host::utf8_fault(text); fault != text.npos) {
    fail("the text is not valid UTF-8: byte {} (0x{:02x}) does not belong; convert it to UTF-8",
         fault, static_cast<unsigned char>(text[fault]));
  }
  if (text.size() > kMaxTextBytes) {
    fail("the text has {} bytes, more than a tokenizer takes at once", text.size());
  }
}

std::unique_ptr<Tokenizer> load_tokenizer(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return load_directory(path);
  if (!fs::exists(path, ignored)) {
    fail("{}: there is no such file or directory; name a model directory or a vocabulary's file",
         path.string());
  }
  const fs::path ending = path.extension();
  if (ending == ".json") return load_bpe(path);
  if (ending == ".model") return load<SentencepieceTokenizer>(path);
  if (ending == ".bin") return load<Llama2cTokenizer>(path);
  fail(
      "{}: is not a kind of vocabulary that is known by its name; wanted a tokenizer.json, "
      "tokenizer.model or tokenizer.bin",
      path.string());
}

}  // namespace ocelli::llm
