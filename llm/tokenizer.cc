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

enum class Kind { kBpe, kSentencepiece, kLlama2c };

// What is read of a vocabulary, and how.
struct Source {
  Kind kind;
  fs::path path;
};

Source find_in_directory(const fs::path& directory) {
  const auto has = [&](const char* name) {
    std::error_code ignored;
    return fs::exists(directory / name, ignored);
  };
  const bool has_bpe = has("tokenizer.json") || (has("vocab.json") && has("merges.txt"));
  if (!has_bpe && has("tokenizer.model")) {
    return {Kind::kSentencepiece, directory / "tokenizer.model"};
  }
  if (!has_bpe && has("tokenizer.bin")) return {Kind::kLlama2c, directory / "tokenizer.bin"};
  return {Kind::kBpe, directory};  // whose reader says what is missing
}

Source find_source(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return find_in_directory(path);
  if (!fs::exists(path, ignored)) {
    fail("{}: there is no such file or directory; name a model directory or a vocabulary's file",
         path.string());
  }
  const fs::path ending = path.extension();
  if (ending == ".json") return {Kind::kBpe, path};
  if (ending == ".model") return {Kind::kSentencepiece, path};
  if (ending == ".bin") return {Kind::kLlama2c, path};
  fail(
      "{}: is not a kind of vocabulary that is known by its name; wanted a tokenizer.json, "
      "tokenizer.model or tokenizer.bin",
      path.string());
}

// A tokenizer.bin or tokenizer.model.
class VocabularyFile {
 public:
  explicit VocabularyFile(const fs::path& path) : file_(path) {
    if (file_.bytes().size() > kMaxVocabularyBytes) {
      fail("{}: has {} bytes, more than the {} that a vocabulary may have", path.string(),
           file_.bytes().size(), kMaxVocabularyBytes);
    }
  }
  std::span<const std::byte> bytes() const { return file_.bytes(); }

 private:
  host::MappedFile file_;
};

const char* name_of(Kind kind) {
  return kind == Kind::kBpe ? "bpe" : kind == Kind::kLlama2c ? "llama2c" : "sentencepiece";
}

std::unique_ptr<Tokenizer> make_tokenizer(Kind kind, std::span<const std::byte> bytes,
                                          const std::string& where) {
  if (kind == Kind::kLlama2c) return std::make_unique<Llama2cTokenizer>(bytes, where);
  return std::make_unique<SentencepieceTokenizer>(bytes, where);
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
  const Source source = find_source(path);
  if (source.kind == Kind::kBpe) {
    return std::make_unique<BpeTokenizer>(read_bpe_files(source.path));
  }
  return make_tokenizer(source.kind, VocabularyFile(source.path).bytes(), source.path.string());
}

PackedTokenizer pack_tokenizer(const fs::path& path) {
  const Source source = find_source(path);
  if (source.kind == Kind::kBpe) {
    return {name_of(source.kind), pack_bpe(make_bpe_parts(read_bpe_files(source.path)))};
  }
  const VocabularyFile file(source.path);
  make_tokenizer(source.kind, file.bytes(), source.path.string());  // which says what is wrong
  return {name_of(source.kind),
          {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()}};
}

std::unique_ptr<Tokenizer> unpack_tokenizer(const std::string& kind,
                                            std::span<const std::byte> bytes,
                                            const std::string& where) {
  if (kind == name_of(Kind::kBpe)) return std::make_unique<BpeTokenizer>(unpack_bpe(bytes, where));
  for (const Kind known : {Kind::kSentencepiece, Kind::kLlama2c}) {
    if (kind == name_of(known)) return make_tokenizer(known, bytes, where);
  }
  fail("{}: its vocabulary is of the unknown kind \"{}\"", where, host::printable(kind));
}

}  // namespace ocelli::llm
