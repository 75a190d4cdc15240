// The captions that are done, on disk, so that no run after a kill repeats or loses one.
//
// A file that only grows, of JSON Lines: a header, then a record a line as captions.jsonl has them
// (captions without prefix and suffix), each with the beginning of its own SHA-256 as "check". A
// line that was torn is recognised by it. A record is found by the picture's content and the hash
// of all settings; later ones of the same key count.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstring>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "app/caption_record.h"
#include "host/sha256.h"

namespace ocelli::app {

class CaptionJournal {
 public:
  // Opens or begins the journal at `path`, and locks it until the end; without a path it is a file
  // without a name. A torn end is cut off. Records of other settings than `settings` stay, but are
  // not found. Throws host::Error when another process has the journal, when the file is no
  // journal, or when it cannot be read and written.
  CaptionJournal(const std::string& path, std::string settings);
  ~CaptionJournal();
  CaptionJournal(const CaptionJournal&) = delete;
  CaptionJournal& operator=(const CaptionJournal&) = delete;

  // Where the record of this content stands, if there is one.
  std::optional<int64_t> find(const host::Sha256Digest& digest) const;
  // The record at a place that find() or append() gave.
  CaptionRecord read(int64_t place) const;
  // Adds a record, which a rerun finds unless it has no sha256, and returns its place. What was
  // added is on the disk after two seconds, or when sync() returns. Throws host::Error on a full
  // disk, and the journal is then as it was.
  int64_t append(const CaptionRecord& record);
  void sync();
  // The place of the record that is added next.
  int64_t end() const { return size_; }

  // No longer finds records other than kOk.
  void forget_failures();

  // Whether an earlier run said that it writes the file `name`, and saying so.
  bool knows_output(const std::string& name) const { return outputs_.contains(name); }
  void add_output(const std::string& name);

  // Records found in the file: of these settings, and of others.
  size_t resumable() const { return index_.size(); }
  size_t others() const { return others_; }
  // What was wrong with the file and has been put right; empty when nothing was.
  const std::string& repairs() const { return repairs_; }

 private:
  struct DigestHash {
    size_t operator()(const host::Sha256Digest& digest) const {
      size_t hash = 0;
      std::memcpy(&hash, digest.data(), sizeof hash);
      return hash;
    }
  };
  struct Entry {
    int64_t place;
    bool good;
  };

  void open(const std::string& path);
  void lock() const;
  void load();
  // Takes a line without its newline; false when it is torn.
  bool take(std::string_view line, int64_t place);
  void take_record(const CaptionRecord& record, int64_t place);
  int64_t append_line(const std::string& object);
  // The bytes from `place` on, at most `count`.
  std::string read_bytes(int64_t place, size_t count) const;
  [[noreturn]] void refuse() const;
  [[noreturn]] void fail_with(const char* what) const;

  std::string name_;  // for messages
  std::string settings_;
  int descriptor_ = -1;
  int64_t size_ = 0;
  std::unordered_map<host::Sha256Digest, Entry, DigestHash> index_;
  std::set<std::string> outputs_;
  size_t others_ = 0;
  std::string repairs_;
  bool unsynced_ = false;
  std::chrono::steady_clock::time_point last_sync_;
};

}  // namespace ocelli::app
