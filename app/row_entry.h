// The bytes of an entry of the row cache: a picture's rows, and what they are known again by.
//
//   0   "ocelrows"
//   8   u64  version, 1
//   16  the key, 32 bytes
//   48  u64  how many values there are
//   56  u64  checksum of the values' bytes (kernels::checksum_of)
//   64  the values, fp32
//
// All little-endian.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "host/sha256.h"

namespace ocelli::app {

// What a picture's rows are found by: see row_key().
using RowKey = host::Sha256Digest;

inline constexpr size_t kRowEntryHeader = 64;
using RowEntryHeader = std::array<std::byte, kRowEntryHeader>;

RowEntryHeader make_row_entry_header(const RowKey& key, std::span<const float> rows);

// The values of an entry that lies in memory; nothing unless it is whole, of this key and of
// `count` values.
std::optional<std::span<const std::byte>> row_entry_values(std::span<const std::byte> entry,
                                                           const RowKey& key, size_t count);

}  // namespace ocelli::app
