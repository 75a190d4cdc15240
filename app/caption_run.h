// Captions for many pictures: those the journal has are taken from it, the others go through the
// engine, as many at a time as it takes.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "app/caption_inputs.h"
#include "app/caption_journal.h"
#include "app/caption_maps.h"
#include "app/caption_settings.h"
#include "app/picture_feed.h"

namespace ocelli::app {

// Called for every picture when there is a record of it, in no order; `resumed` when the journal
// had it before this run.
using CaptionDone = std::function<void(size_t index, const CaptionRecord& record, bool resumed)>;

class CaptionRun {
 public:
  // All must outlive the run. `settings_hash` is that of the journal.
  CaptionRun(Pipeline& pipeline, const CaptionSettings& settings, std::string settings_hash,
             CaptionJournal& journal);
  ~CaptionRun();
  CaptionRun(const CaptionRun&) = delete;
  CaptionRun& operator=(const CaptionRun&) = delete;

  // Also writes the maps of captions, which the pipeline has a probe for; `maps` must outlive the
  // run. Pictures without a map are captioned, for it, even where the journal has them; of several
  // with one content, one.
  void draw(const CaptionMaps& maps) { maps_ = &maps; }

  // Makes a record for every picture: a bad one is a record with its reason. Pictures of the same
  // content are captioned once. Returns false when a signal ended it early, the captions in hand
  // having been finished. Throws host::Error when the journal, or `done`, does.
  bool run(std::span<const CaptionInput> pictures, int feed_threads, const CaptionDone& done);

  // Where in the journal the record of picture `index` of run() is; -1 when there is none.
  int64_t place(size_t index) const { return places_[index]; }

 private:
  struct Running;
  struct DigestHash {
    size_t operator()(const host::Sha256Digest& digest) const;
  };

  bool claim(size_t index, const host::Sha256Digest& digest);
  // Whether the picture, which is in the journal, lacks a map that it could have.
  bool lacks_map(size_t index, int64_t place) const;
  void admit(PictureFeed& feed);
  void take(FedPicture picture);
  void start(FedPicture picture);
  // Asks about the picture of `running`; false, with its record made, when that cannot be done.
  bool ask(Running& running);
  void accept(const llm::Output& output);
  // The caption is there: finishes the picture, or asks once more.
  void finish(size_t position);
  CaptionRecord record_of(const Running& running) const;
  void write_map(const Running& running, const Gaze& gaze);
  CaptionRecord blank_record() const;
  // Keeps a new record, for the picture and for those of the same content that wait for it.
  void store(size_t index, const std::optional<host::Sha256Digest>& digest, CaptionRecord record);
  void report(size_t index, int64_t place);

  Pipeline& pipeline_;
  const CaptionSettings& settings_;
  const std::string settings_hash_;
  CaptionJournal& journal_;
  const CaptionMaps* maps_ = nullptr;
  std::span<const CaptionInput> pictures_;
  CaptionDone done_;
  std::vector<int64_t> places_;
  int64_t first_place_ = 0;  // of the records of this run
  std::vector<std::unique_ptr<Running>> running_;
  // Of contents that are in hand: pictures that wait for the record.
  std::unordered_map<host::Sha256Digest, std::vector<size_t>, DigestHash> waiting_;
  std::mutex mutex_;  // the journal's index and what follows are asked by the feed's threads
  std::unordered_map<host::Sha256Digest, size_t, DigestHash> drawn_;  // who has a map of it
  std::unordered_set<host::Sha256Digest, DigestHash> claimed_;        // in hand, or given up
};

}  // namespace ocelli::app
