#include "app/caption_run.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <optional>
#include <utility>

#include "app/conversation.h"
#include "app/stopwatch.h"
#include "app/terminal.h"
#include "app/text.h"
#include "host/error.h"

namespace ocelli::app {
namespace {

// How long the engine, with nothing to do, waits for a picture before it looks for a signal.
constexpr int kPatienceMs = 50;

}  // namespace

// A picture in the engine.
struct CaptionRun::Running {
  size_t index = 0;
  host::Sha256Digest digest{};
  Pictures pictures;
  Stopwatch watch;
  int attempt = 0;
  std::optional<vision::Image> copy;   // to draw its map on
  std::optional<CaptionRecord> first;  // what came of the first attempt, when it was not good
  Gaze first_gaze;
  std::unique_ptr<Conversation> conversation;
};

CaptionRun::CaptionRun(Pipeline& pipeline, const CaptionSettings& settings,
                       std::string settings_hash, CaptionJournal& journal)
    : pipeline_(pipeline),
      settings_(settings),
      settings_hash_(std::move(settings_hash)),
      journal_(journal) {
}

CaptionRun::~CaptionRun() = default;

bool CaptionRun::run(std::span<const CaptionInput> pictures, int feed_threads,
                     const CaptionDone& done) {
  pictures_ = pictures;
  done_ = done;
  places_.assign(pictures.size(), -1);
  first_place_ = journal_.end();
  std::vector<std::string> paths;
  for (const CaptionInput& picture : pictures) paths.push_back(picture.path);
  FeedOptions options;
  options.decode = settings_.decode;
  options.threads = feed_threads;
  options.ahead = static_cast<size_t>(feed_threads) + static_cast<size_t>(pipeline_.sequences());
  options.wanted = [this](size_t index, const host::Sha256Digest& digest) {
    return claim(index, digest);
  };
  options.preprocess = [this](const vision::Image& image) { return pipeline_.preprocess(image); };
  if (maps_) options.copy = heatmap_ground;
  PictureFeed feed(std::move(paths), std::move(options));
  while (!running_.empty() || (!feed.finished() && !interrupted())) {
    admit(feed);
    for (const llm::Output& output : pipeline_.engine().step()) accept(output);
  }
  journal_.sync();
  return feed.finished();
}

// Whether this content is new: of several pictures with it one is decoded.
bool CaptionRun::claim(size_t index, const host::Sha256Digest& digest) {
  const std::lock_guard lock(mutex_);
  const std::optional<int64_t> place = journal_.find(digest);
  const bool wanted = !place || (lacks_map(index, *place) && !drawn_.contains(digest));
  return wanted && claimed_.insert(digest).second;
}

bool CaptionRun::lacks_map(size_t index, int64_t place) const {
  return maps_ && maps_->missing(index) && journal_.read(place).status != CaptionStatus::kError;
}

// Fills the free places of the engine with pictures that are ready.
void CaptionRun::admit(PictureFeed& feed) {
  const auto places = static_cast<size_t>(pipeline_.sequences());
  while (running_.size() < places && !feed.finished() && !interrupted()) {
    std::optional<FedPicture> picture = feed.next(running_.empty() ? kPatienceMs : 0);
    if (!picture) return;
    take(std::move(*picture));
  }
}

void CaptionRun::take(FedPicture picture) {
  const size_t index = picture.index;
  if (!picture.error.empty()) {
    CaptionRecord record = blank_record();
    record.status = CaptionStatus::kError;
    record.error = picture.error;
    record.milliseconds = picture.milliseconds;
    return store(index, picture.digest, std::move(record));
  }
  if (picture.preprocessed) return start(std::move(picture));
  std::optional<int64_t> place;
  {
    const std::lock_guard lock(mutex_);
    // What is in hand although the journal has it is to have a map.
    if (!claimed_.contains(*picture.digest)) place = journal_.find(*picture.digest);
  }
  if (!place) {
    waiting_[*picture.digest].push_back(index);
  } else {
    report(index, *place);
  }
}

void CaptionRun::start(FedPicture picture) {
  auto running = std::make_unique<Running>();
  running->index = picture.index;
  running->digest = *picture.digest;
  running->pictures.images.push_back(std::move(*picture.preprocessed));
  running->copy = std::move(picture.copy);
  running->pictures.decode_ms = picture.milliseconds;
  running->pictures.preprocessed = true;
  if (ask(*running)) running_.push_back(std::move(running));
}

bool CaptionRun::ask(Running& running) {
  const AnswerOptions options = answer_options(settings_, running.digest, running.attempt);
  CaptionRecord record = blank_record();
  try {
    running.conversation.reset();  // its place serves the next one
    running.conversation = std::make_unique<Conversation>(pipeline_);
    running.conversation->ask(settings_.prompt, running.pictures, options);
    return true;
  } catch (const host::Error& error) {
    record.error = error.what();
  } catch (const std::bad_alloc&) {
    record.error = "out of memory";
  }
  record.status = CaptionStatus::kError;
  store(running.index, running.digest, std::move(record));
  return false;
}

void CaptionRun::accept(const llm::Output& output) {
  const auto found = std::ranges::find_if(running_, [&](const auto& running) {
    return running->conversation->sequence() == output.sequence;
  });
  OCELLI_CHECK(found != running_.end(), "sequence {} is nobody's", output.sequence);
  Running& running = **found;
  try {
    running.conversation->accept(output);
    if (!running.conversation->finished()) return;
    running.conversation->finish();
  } catch (const host::Error& error) {
    CaptionRecord record = blank_record();
    record.status = CaptionStatus::kError;
    record.error = error.what();
    const std::unique_ptr<Running> ended = std::move(*found);
    running_.erase(found);
    return store(ended->index, ended->digest, std::move(record));
  }
  finish(static_cast<size_t>(found - running_.begin()));
}

void CaptionRun::finish(size_t position) {
  Running& running = *running_[position];
  CaptionRecord record = record_of(running);
  const bool good = record.status == CaptionStatus::kOk;
  if (!good && running.attempt == 0) {
    running.first = std::move(record);
    running.first_gaze = running.conversation->answer().gaze;
    running.attempt = 1;
    if (!ask(running)) running_.erase(running_.begin() + static_cast<int64_t>(position));
    return;
  }
  // Of two captions that are not good the one that was asked for is kept.
  if (!good) record = *running.first;
  record.retried = good && running.attempt == 1;
  record.milliseconds = running.pictures.decode_ms + running.watch.elapsed_ms();
  const std::unique_ptr<Running> ended = std::move(running_[position]);
  running_.erase(running_.begin() + static_cast<int64_t>(position));
  write_map(*ended, good ? ended->conversation->answer().gaze : ended->first_gaze);
  store(ended->index, ended->digest, std::move(record));
}

// Before the record is kept: what a rerun finds in the journal has its map.
void CaptionRun::write_map(const Running& running, const Gaze& gaze) {
  if (!maps_) return;
  maps_->write(running.index, gaze, *running.copy, *pipeline_.config().vision);
  const std::lock_guard lock(mutex_);
  drawn_.emplace(running.digest, running.index);
}

CaptionRecord CaptionRun::record_of(const Running& running) const {
  const Answer& answer = running.conversation->answer();
  CaptionRecord record = blank_record();
  record.caption = trimmed_end(answer.text);
  record.tokens = answer.tokens;
  record.confidence = answer.confidence;
  const std::string said = answer.text.substr(settings_.answer.begin_with.size());
  record.status = settings_.gates.judge(said, answer.confidence);
  return record;
}

CaptionRecord CaptionRun::blank_record() const {
  CaptionRecord record;
  record.model = settings_.model;
  record.settings = settings_hash_;
  return record;
}

void CaptionRun::store(size_t index, const std::optional<host::Sha256Digest>& digest,
                       CaptionRecord record) {
  record.path = pictures_[index].path;
  if (digest) record.sha256 = host::hex(*digest);
  int64_t place = 0;
  {
    const std::lock_guard lock(mutex_);
    place = journal_.append(record);
    if (digest) claimed_.erase(*digest);
  }
  report(index, place);
  if (!digest) return;
  const auto waiting = waiting_.extract(*digest);
  if (waiting.empty()) return;
  for (const size_t other : waiting.mapped()) report(other, place);
}

void CaptionRun::report(size_t index, int64_t place) {
  places_[index] = place;
  CaptionRecord record = journal_.read(place);
  if (host::Sha256Digest digest; maps_ && host::parse_hex(record.sha256, digest)) {
    // Of one content with a picture that was captioned.
    const auto drawn = drawn_.find(digest);
    if (drawn != drawn_.end() && maps_->missing(index)) maps_->copy(drawn->second, index);
  }
  record.path = pictures_[index].path;
  done_(index, record, place < first_place_);
}

size_t CaptionRun::DigestHash::operator()(const host::Sha256Digest& digest) const {
  size_t hash = 0;
  std::memcpy(&hash, digest.data(), sizeof hash);
  return hash;
}

}  // namespace ocelli::app
