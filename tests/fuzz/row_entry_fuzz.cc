// Feeds any bytes to the reader of the row cache's entries: it must give values that lie inside
// them and are those that the header was made of, or nothing.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "app/row_entry.h"
#include "host/error.h"

namespace {

using namespace ocelli;  // NOLINT(google-build-using-namespace): a program of one file

constexpr size_t kKeyAt = 16;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span entry(reinterpret_cast<const std::byte*>(data), size);
  app::RowKey key{};
  if (size >= kKeyAt + key.size()) std::memcpy(key.data(), data + kKeyAt, key.size());
  const size_t body = size - std::min(size, app::kRowEntryHeader);
  const size_t count = body / sizeof(float);
  if (const auto values = app::row_entry_values(entry, key, count)) {
    OCELLI_CHECK(values->data() + values->size() == entry.data() + size, "{} of {}", values->size(),
                 size);
  }
  // With the header that it should have, every entry is taken; with any other key, none is.
  std::vector<float> rows(count);
  if (count > 0) std::memcpy(rows.data(), data + app::kRowEntryHeader, count * sizeof(float));
  const app::RowEntryHeader header = app::make_row_entry_header(key, rows);
  std::vector<std::byte> sound(header.begin(), header.end());
  const auto bytes = std::as_bytes(std::span(rows));
  sound.insert(sound.end(), bytes.begin(), bytes.end());
  const auto values = app::row_entry_values(sound, key, count);
  OCELLI_CHECK(values && std::ranges::equal(*values, bytes), "{} values", count);
  key[0] ^= 1;
  OCELLI_CHECK(!app::row_entry_values(sound, key, count), "{} values", count);
  return 0;
}
