// The parts of a sharded run, put together: what they hold, what is missing and what does not fit.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "app/caption_record.h"
#include "app/shard.h"
#include "host/mapped_file.h"

namespace ocelli::app {

// What may be wrong with the parts of a run.
enum class MergeFault {
  kMissingPart,   // a part of n that was not given
  kRepeatedPart,  // a share that was given twice
  kMissing,       // a picture of the inputs that no part has
  kDuplicate,     // a picture that stands in the parts twice
  kMisplaced,     // a picture that belongs to another part: the run was split in another way
  kDisagreement,  // captions made by several models or settings, parts of several runs
  kBrokenLine,    // a line that is no record
  kTornLine,      // a last line that was cut off while it was written
  kDifference,    // a record that is not what compare() was told
};
constexpr size_t kMergeFaults = 9;

// "missing_parts", "repeated_parts", …: the keys of the summary.
const char* name(MergeFault fault);

class MergedParts {
 public:
  // Reads the parts at `paths`. Throws host::Error for a file that cannot be read; everything that
  // is wrong inside the files becomes a fault.
  explicit MergedParts(const std::vector<std::string>& paths);

  // Brings the records into the order of a run over `pictures`, those of no picture at the end, and
  // records as faults the pictures without a record. Without this call, records are in the order
  // of a run over one folder: path by path, folder by folder, names compared as bytes.
  void follow(const std::vector<std::string>& pictures);

  // Records as faults whatever the table of JSON Lines at `path` has otherwise, in records of the
  // same picture: all but the order and the milliseconds. Throws host::Error when it is no such
  // table.
  void compare(const std::string& path);

  // The line of each picture, without newline, as it stands in its part; of several the first.
  std::vector<std::string_view> lines() const;

  // And their pictures, in the same order.
  std::vector<std::string> pictures() const;

  // What is wrong, a line each; empty when nothing is.
  const std::vector<std::string>& faults(MergeFault fault) const {
    return faults_[static_cast<size_t>(fault)];
  }

  // {"parts", "pictures", "unlisted", "status": {"ok": 7, …}, "missing": […], …}: every kind of
  // fault under its name. `unlisted` pictures are those that follow() was not told of.
  nlohmann::ordered_json summary() const;

 private:
  struct Part {
    std::string path;
    std::unique_ptr<host::MappedFile> file;  // null: the file is empty
    std::optional<PartName> name;
  };
  struct Record {
    std::string path;
    std::string_view line;
    std::string where;  // "part.jsonl:3"
    CaptionStatus status;
    size_t place = 0;  // among the pictures that follow() was told of
  };

  void read(const Part& part);
  void read_line(const Part& part, std::string_view line, size_t number, bool ended);
  void accept(const Part& part, std::string_view line, const std::string& where);
  void find_duplicates();
  void find_disagreements();
  void find_missing_parts();
  void add(MergeFault fault, std::string text) {
    faults_[static_cast<size_t>(fault)].push_back(std::move(text));
  }

  std::vector<Part> parts_;
  std::vector<Record> records_;  // one a picture, in order
  std::map<std::pair<std::string, std::string>, std::pair<size_t, std::string>>
      makers_;  // model and settings → how many records, and where the first one is
  std::array<std::vector<std::string>, kMergeFaults> faults_;
  size_t unlisted_ = 0;
};

}  // namespace ocelli::app
