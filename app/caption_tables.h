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

// Writes a table whole or not at all, in the order of the pictures; record_of(i) is what became of
// picture i, nothing for those that are not done. ImageFolder has good captions alone, the others
// every record; CSV leaves the caption of those empty that are not good. Prefix and suffix stand
// around good captions. Throws host::Error when that fails.
void write_table(const CaptionTable& table, const CaptionOutputOptions& options, size_t pictures,
                 const std::function<std::optional<CaptionRecord>(size_t)>& record_of);

}  // namespace ocelli::app
