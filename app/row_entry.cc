#include "app/row_entry.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "kernels/packed_file.h"

namespace ocelli::app {
namespace {

constexpr std::string_view kMagic = "ocelrows";
constexpr uint64_t kVersion = 1;
constexpr size_t kVersionAt = 8;
constexpr size_t kKeyAt = 16;
constexpr size_t kCountAt = 48;
constexpr size_t kChecksumAt = 56;

RowEntryHeader header_of(const RowKey& key, std::span<const std::byte> values) {
  RowEntryHeader header{};
  const auto put = [&](size_t at, const void* bytes, size_t count) {
    std::memcpy(header.data() + at, bytes, count);
  };
  const uint64_t count = values.size() / sizeof(float);
  const uint64_t checksum = kernels::checksum_of(values);
  put(0, kMagic.data(), kMagic.size());
  put(kVersionAt, &kVersion, sizeof kVersion);
  put(kKeyAt, key.data(), key.size());
  put(kCountAt, &count, sizeof count);
  put(kChecksumAt, &checksum, sizeof checksum);
  return header;
}

}  // namespace

RowEntryHeader make_row_entry_header(const RowKey& key, std::span<const float> rows) {
  return header_of(key, std::as_bytes(rows));
}

std::optional<std::span<const std::byte>> row_entry_values(std::span<const std::byte> entry,
                                                           const RowKey& key, size_t count) {
  if (entry.size() != kRowEntryHeader + count * sizeof(float)) return std::nullopt;
  const auto values = entry.subspan(kRowEntryHeader);
  const RowEntryHeader expected = header_of(key, values);
  if (!std::ranges::equal(entry.first(kRowEntryHeader), expected)) return std::nullopt;
  return values;
}

}  // namespace ocelli::app
