#include "llm/sentencepiece_settings.h"

#include <string_view>

#include "host/error.h"

namespace ocelli::llm {
namespace {

using host::fail;

// A field of a protobuf message.
struct Field {
  enum class Type { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

  uint32_t number = 0;
  Type type = Type::kVarint;
  uint64_t value = 0;      // of a varint
  std::string_view bytes;  // of bytes, or a message within
};

// Walks over the fields of a message.
class FieldReader {
 public:
  FieldReader(std::string_view message, const std::string& where) : rest_(message), where_(where) {}

  // Whether there is another field, which is then in `field`.
  bool next(Field& field) {
    if (rest_.empty()) return false;
    const uint64_t tag = varint();
    if (tag > UINT32_MAX || tag < 8) refuse();
    field = {static_cast<uint32_t>(tag >> 3), static_cast<Field::Type>(tag & 7), 0, {}};
    switch (field.type) {
      case Field::Type::kVarint:
        field.value = varint();
        return true;
      case Field::Type::kBytes:
        field.bytes = take(varint());
        return true;
      case Field::Type::kFixed64:
        take(8);
        return true;
      case Field::Type::kFixed32:
        take(4);
        return true;
    }
    refuse();  // groups, which no version of the format has used
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= uint64_t{byte & 0x7FU} << shift;
      if (byte < 0x80) return value;
    }
    refuse();
  }

  std::string_view take(uint64_t count) {
    if (count > rest_.size()) refuse();
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }

  [[noreturn]] void refuse() const {
    fail("{}: is not a sentencepiece model, or it is cut off or broken", where_);
  }

  std::string_view rest_;
  const std::string& where_;
};

// The numbers of the fields in sentencepiece_model.proto.
constexpr uint32_t kTrainerSpec = 2;
constexpr uint32_t kNormalizerSpec = 3;
constexpr uint32_t kDenormalizerSpec = 5;
constexpr uint32_t kModelType = 3;
constexpr uint32_t kWhitespaceAsSuffix = 24;
constexpr uint32_t kByteFallback = 35;
constexpr uint32_t kCharacterMap = 2;
constexpr uint32_t kAddDummyPrefix = 3;
constexpr uint32_t kRemoveExtraWhitespaces = 4;
constexpr uint32_t kEscapeWhitespaces = 5;

void read_trainer(FieldReader reader, SentencepieceSettings& settings) {
  for (Field field; reader.next(field);) {
    if (field.type != Field::Type::kVarint) continue;
    if (field.number == kModelType) settings.model_type = static_cast<int32_t>(field.value);
    if (field.number == kWhitespaceAsSuffix) settings.space_as_suffix = field.value != 0;
    if (field.number == kByteFallback) settings.byte_fallback = field.value != 0;
  }
}

void read_normalizer(FieldReader reader, bool denormalizes, SentencepieceSettings& settings) {
  for (Field field; reader.next(field);) {
    if (field.type == Field::Type::kBytes && field.number == kCharacterMap) {
      settings.maps_characters = settings.maps_characters || !field.bytes.empty();
    }
    if (field.type != Field::Type::kVarint || denormalizes) continue;
    if (field.number == kAddDummyPrefix) settings.adds_space = field.value != 0;
    if (field.number == kRemoveExtraWhitespaces) settings.removes_spaces = field.value != 0;
    if (field.number == kEscapeWhitespaces) settings.marks_spaces = field.value != 0;
  }
}

}  // namespace

SentencepieceSettings read_sentencepiece_settings(std::span<const std::byte> file,
                                                  const std::string& where) {
  SentencepieceSettings settings;
  FieldReader reader({reinterpret_cast<const char*>(file.data()), file.size()}, where);
  for (Field field; reader.next(field);) {
    if (field.type != Field::Type::kBytes) continue;
    const FieldReader within(field.bytes, where);
    if (field.number == kTrainerSpec) read_trainer(within, settings);
    if (field.number == kNormalizerSpec) read_normalizer(within, false, settings);
    if (field.number == kDenormalizerSpec) read_normalizer(within, true, settings);
  }
  return settings;
}

}  // namespace ocelli::llm
