// Captions of all pictures in one file: JSON Lines, CSV, or the metadata.jsonl of Hugging Face's
// ImageFolder.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "app/caption_journal.h"
#include "app/caption_outputs.h"
#include "app/caption_record.h"

namespace ocelli::app {

struct CaptionTable {
  CaptionFormat format;
  std::string path;    // "-": standard output
  std::string folder;  // of an ImageFolder: what its file names are relative to
};

// The tables that completed options ask for. Throws UsageError where one has no place, and
// host::Error when pictures lie outside the folder of an ImageFolder.
std::vector<CaptionTable> plan_tables(const CaptionOutputOptions& options,
                                      const CaptionInputs& inputs);

// Claims the tables for the runs of this journal. Throws host::Error when a file is there that is
// of no earlier run, unless it is to be overwritten.
void claim_tables(const std::vector<CaptionTable>& tables, IfExists if_exists,
                  CaptionJournal& journal);

// What became of a picture; nothing for one that is not done.
using RecordOf = std::function<std::optional<CaptionRecord>(size_t index)>;

// Writes a table in the order of the pictures: a file whole or not at all when all is done,
// standard output line by line as soon as the pictures before are done. ImageFolder has good
// captions alone, the others every record; CSV leaves the caption of those empty that are not good.
// Prefix and suffix stand around good captions.
class TableWriter {
 public:
  // `options` must outlive this.
  TableWriter(CaptionTable table, const CaptionOutputOptions& options, size_t pictures,
              RecordOf record_of);

  const std::string& path() const { return table_.path; }
  // Writes what standard output can be given by now. Throws host::Error when that fails.
  void advance();
  // Writes the rest, those that are not done left out. Throws host::Error when that fails.
  void finish();

 private:
  // The lines from next_ on, until a picture that is not done when `in_order`.
  void write_lines(bool in_order, const std::function<void(const std::string&)>& write);

  CaptionTable table_;
  const CaptionOutputOptions& options_;
  size_t pictures_;
  RecordOf record_of_;
  size_t next_ = 0;
  bool begun_ = false;
};

}  // namespace ocelli::app
