#include "llm/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include <exception>
#include <utility>

#include "host/error.h"
#include "llm/character_ids.h"
#include "llm/llama_rules.h"
#include "llm/sentencepiece_settings.h"

namespace ocelli::llm {
namespace {

using host::fail;
using host::printable;

// Refuses what Llama's models have not: the library reads a table of characters without checks, and
// the others would need another way back to text.
void require_supported(const SentencepieceSettings& settings, const std::string& where) {
  const auto refuse = [&](const char* what) {
    fail("{}: {}, which is not supported; wanted BPE with byte fallback, as Llama's are", where,
         what);
  };
  if (settings.model_type != SentencepieceSettings::kBpe) refuse("is not a BPE model");
  if (!settings.byte_fallback) refuse("has no byte fallback");
  if (settings.maps_characters) refuse("replaces characters by a table");
  if (settings.removes_spaces) refuse("removes extra spaces (remove_extra_whitespaces)");
  if (settings.space_as_suffix) refuse("writes spaces behind words (treat_whitespace_as_suffix)");
  if (!settings.marks_spaces) refuse("leaves spaces as they are (escape_whitespaces off)");
}

}  // namespace

SentencepieceTokenizer::SentencepieceTokenizer(std::span<const std::byte> file,
                                               const std::string& where)
    : processor_(std::make_unique<sentencepiece::SentencePieceProcessor>()) {
  const SentencepieceSettings settings = read_sentencepiece_settings(file, where);
  require_supported(settings, where);
  try {
    const auto status = processor_->LoadFromSerializedProto(
        {reinterpret_cast<const char*>(file.data()), file.size()});
    if (!status.ok()) {
      fail("{}: sentencepiece refuses it: {}", where, printable(status.ToString(), 200));
    }
  } catch (const host::Error&) {
    throw;
  } catch (const std::exception& error) {
    fail("{}: sentencepiece cannot read it: {}", where, printable(error.what(), 200));
  }
  adds_space_ = settings.adds_space;
  bos_ = processor_->bos_id();
  eos_ = processor_->eos_id();
  std::vector<AddedToken> specials;
  std::string text;
  const int count = processor_->GetPieceSize();
  is_special_.resize(count);
  for (int32_t id = 0; id < count; ++id) {
    const std::string& piece = processor_->IdToPiece(id);
    text.clear();
    append_unmarked(piece, text);
    tokens_.add(processor_->IsByte(id) ? bytes_of_token(piece) : text);
    is_special_[id] = processor_->IsControl(id) || processor_->IsUnknown(id);
    if (is_special_[id]) specials.push_back({piece, id, true, false});
  }
  specials_ = AddedTokenFinder(std::move(specials));
}

SentencepieceTokenizer::~SentencepieceTokenizer() = default;

bool SentencepieceTokenizer::is_special(int32_t id) const {
  return id >= 0 && id < size() && is_special_[id];
}

bool SentencepieceTokenizer::adds_space_after(int32_t previous) const {
  return adds_space_ && (previous < 0 || is_special(previous));
}

std::vector<int32_t> SentencepieceTokenizer::encode(std::string_view text,
                                                    SpecialTokens special) const {
  require_text(text);
  std::vector<int32_t> ids;
  specials_.split(
      text, special == SpecialTokens::kParse,
      [&](std::string_view stretch) { append_ids(stretch, ids); },
      [&](int32_t id) { ids.push_back(id); });
  return ids;
}

void SentencepieceTokenizer::append_ids(std::string_view text, std::vector<int32_t>& ids) const {
  if (text.empty()) return;
  std::vector<int> pieces;
  const auto status = processor_->Encode(text, &pieces);
  if (!status.ok()) fail("sentencepiece cannot encode the text: {}", status.ToString());
  ids.insert(ids.end(), pieces.begin(), pieces.end());
}

}  // namespace ocelli::llm
