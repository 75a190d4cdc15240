// What the vision tower made of pictures, on disk: whatever else is asked about a picture, on
// another day as well, it is encoded once.
//
// What is kept are the tower's rows that reach the connector, and not the connector's: they are
// less than half the bytes of TinyLLaVA (3.4 MB a picture, not 7.5), and the connector is a
// fortieth of the work. Values are fp32 as they were computed, so that answers are the same to the
// bit with the cache and without.
//
// A folder with an entry a file (app/row_entry.h), xx/y….rows, its 64 hex digits the key. Any
// number of processes may use it at once: an entry appears whole, by a rename, and one that was
// damaged is not taken and is made again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "app/model.h"
#include "app/row_entry.h"
#include "vision/image.h"

namespace ocelli::app {

struct RowCacheOptions {
  std::filesystem::path directory;
  int64_t bytes = 10'000'000'000;  // that all entries may take together
  bool quiet = false;              // no notes
};

// Faults of the folder (it cannot be written, the disk is full) are a note, once, and no errors:
// what is not kept is computed. Not for several threads at once.
class RowCache {
 public:
  explicit RowCache(const RowCacheOptions& options);

  // Fills `rows` with those of the entry and marks it as used; false, with anything in `rows`,
  // where there is none or it is damaged.
  bool find(const RowKey& key, std::span<float> rows);
  // Keeps the rows. Over the size that was given, the entries that were not used for longest go,
  // until a tenth of it is free.
  void store(const RowKey& key, std::span<const float> rows);

  // "cache: 12 of 14 pictures were in DIR"
  std::string summary() const;

 private:
  struct Entry {
    std::filesystem::path path;
    int64_t bytes;
    std::filesystem::file_time_type used;
  };
  std::filesystem::path path_of(const RowKey& key) const;
  // Every entry there is; removes what killed processes left.
  std::vector<Entry> list() const;
  // Removes entries, unless another process is at it, until there is room for `bytes` and more.
  void make_room(int64_t bytes);
  void give_up(const std::string& reason);

  RowCacheOptions options_;
  std::vector<std::byte> buffer_;
  bool writable_ = true;
  int64_t until_listed_ = 0;  // bytes that may be stored before the folder is looked through
  size_t found_ = 0;
  size_t asked_ = 0;
};

}  // namespace ocelli::app
