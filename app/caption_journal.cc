#include "app/caption_journal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "host/error.h"
#include "host/json.h"

namespace ocelli::app {
namespace {

constexpr std::string_view kHeader = R"({"journal":"ocelli caption","version":1})";
constexpr std::string_view kCheckKey = R"(,"check":")";
constexpr std::string_view kLineEnd = "\"}";
constexpr size_t kCheckDigits = 16;
constexpr size_t kBlock = 1 << 20;
constexpr auto kSyncInterval = std::chrono::seconds(2);

std::string check_of(std::string_view bytes) {
  return host::hex(host::sha256(bytes)).substr(0, kCheckDigits);
}

// The object, without its closing brace, followed by its check.
std::string sealed(std::string_view object) {
  object.remove_suffix(1);
  return fmt::format("{}{}{}{}\n", object, kCheckKey, check_of(object), kLineEnd);
}

// What sealed() made a line of, with the brace; nothing for a line that is not whole.
std::optional<std::string> unsealed(std::string_view line) {
  const size_t tail = kCheckKey.size() + kCheckDigits + kLineEnd.size();
  if (line.size() <= tail) return std::nullopt;
  const std::string_view object = line.substr(0, line.size() - tail);
  if (sealed(std::string(object) + "}") != std::string(line) + "\n") return std::nullopt;
  return std::string(object) + "}";
}

}  // namespace

CaptionJournal::CaptionJournal(const std::string& path, std::string settings)
    : settings_(std::move(settings)), last_sync_(std::chrono::steady_clock::now()) {
  open(path);
  try {
    lock();
    load();
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

CaptionJournal::~CaptionJournal() {
  ::close(descriptor_);
}

void CaptionJournal::open(const std::string& path) {
  name_ = path.empty() ? "temporary file" : host::printable(path, 300);
  if (path.empty()) {
    std::error_code none;
    std::string pattern = (std::filesystem::temp_directory_path(none) / "ocelli-XXXXXX").string();
    descriptor_ = ::mkostemp(pattern.data(), O_APPEND | O_CLOEXEC);
    if (descriptor_ < 0) fail_with("cannot be made");
    ::unlink(pattern.c_str());
  } else {
    // A pipe is not waited for.
    constexpr int kFlags = O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK;
    descriptor_ = ::open(path.c_str(), kFlags, 0666);
    if (descriptor_ < 0) fail_with("cannot be written");
  }
}

void CaptionJournal::lock() const {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) fail_with("cannot be read");
  if (!S_ISREG(status.st_mode)) host::fail("{}: a journal must be a regular file", name_);
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return;
  if (errno != EWOULDBLOCK) fail_with("cannot be locked");
  host::fail(
      "{}: another run is writing this journal: wait for its end, or choose another --journal",
      name_);
}

void CaptionJournal::load() {
  std::string rest;  // of a line whose end has not been read
  int64_t line_begin = 0;
  int64_t good_end = 0;
  size_t damaged = 0;     // lines before good_end
  size_t bad_at_end = 0;  // and behind it
  for (std::string block; !(block = read_bytes(size_, kBlock)).empty();) {
    size_ += static_cast<int64_t>(block.size());
    rest += block;
    size_t begin = 0;
    for (size_t end = 0; (end = rest.find('\n', begin)) != rest.npos; begin = end + 1) {
      const int64_t next = line_begin + static_cast<int64_t>(end + 1 - begin);
      if (take(std::string_view(rest).substr(begin, end - begin), line_begin)) {
        good_end = next;
        damaged += std::exchange(bad_at_end, 0);
      } else {
        ++bad_at_end;
      }
      line_begin = next;
    }
    rest.erase(0, begin);
    if (good_end == 0 && !sealed(kHeader).starts_with(rest)) refuse();
  }
  if (damaged > 0) repairs_ = fmt::format("{}: {} damaged lines are passed over", name_, damaged);
  if (good_end < size_) {
    repairs_ = fmt::format("{}: its end was torn: {} bytes are cut off", name_, size_ - good_end);
    if (::ftruncate(descriptor_, good_end) != 0) fail_with("cannot be repaired");
    size_ = good_end;
  }
  if (size_ == 0) append_line(std::string(kHeader));
}

bool CaptionJournal::take(std::string_view line, int64_t place) {
  const std::optional<std::string> object = unsealed(line);
  if (place == 0 && object != kHeader) refuse();
  if (!object) return false;
  if (place == 0) return true;
  const std::string where = fmt::format("{}: byte {}", name_, place);
  const nlohmann::json parsed = host::parse_json(*object, where);
  if (const auto output = parsed.find("output"); output != parsed.end()) {
    outputs_.insert(output->get<std::string>());
    return true;
  }
  take_record(parse_caption_record(*object, where), place);
  return true;
}

void CaptionJournal::take_record(const CaptionRecord& record, int64_t place) {
  host::Sha256Digest digest;
  if (!host::parse_hex(record.sha256, digest)) return;
  if (record.settings != settings_) {
    ++others_;
  } else {
    index_[digest] = {place, record.status == CaptionStatus::kOk};
  }
}

std::optional<int64_t> CaptionJournal::find(const host::Sha256Digest& digest) const {
  const auto found = index_.find(digest);
  if (found == index_.end()) return std::nullopt;
  return found->second.place;
}

CaptionRecord CaptionJournal::read(int64_t place) const {
  constexpr size_t kUsualLine = 4096;
  std::string line;
  size_t end = line.npos;
  for (size_t count = kUsualLine; end == line.npos; count *= 2) {
    line = read_bytes(place, count);
    end = line.find('\n');
    if (end == line.npos && line.size() < count) break;
  }
  const auto object = unsealed(std::string_view(line).substr(0, end));
  if (!object) host::fail("{}: was changed by another program meanwhile", name_);
  return parse_caption_record(*object, fmt::format("{}: byte {}", name_, place));
}

int64_t CaptionJournal::append(const CaptionRecord& record) {
  std::string object = to_line(record);
  object.pop_back();
  const int64_t place = append_line(object);
  take_record(record, place);
  if (std::chrono::steady_clock::now() - last_sync_ >= kSyncInterval) sync();
  return place;
}

void CaptionJournal::add_output(const std::string& name) {
  if (!outputs_.insert(name).second) return;
  append_line(nlohmann::json({{"output", name}}).dump());
}

void CaptionJournal::forget_failures() {
  std::erase_if(index_, [](const auto& entry) { return !entry.second.good; });
}

int64_t CaptionJournal::append_line(const std::string& object) {
  const std::string line = sealed(object);
  const int64_t place = size_;
  for (size_t done = 0; done < line.size();) {
    const ssize_t written = ::write(descriptor_, line.data() + done, line.size() - done);
    if (written >= 0) {
      done += static_cast<size_t>(written);
    } else if (errno != EINTR) {
      const int reason = errno;
      // Where half a line cannot be taken back, the next run cuts it off.
      [[maybe_unused]] const int cut = ::ftruncate(descriptor_, place);
      errno = reason;
      fail_with("cannot be written");
    }
  }
  size_ += static_cast<int64_t>(line.size());
  unsynced_ = true;
  return place;
}

void CaptionJournal::sync() {
  last_sync_ = std::chrono::steady_clock::now();
  if (!std::exchange(unsynced_, false)) return;
  if (::fdatasync(descriptor_) != 0) fail_with("cannot be written");
}

std::string CaptionJournal::read_bytes(int64_t place, size_t count) const {
  std::string bytes(count, '\0');
  size_t done = 0;
  while (done < count) {
    const ssize_t got =
        ::pread(descriptor_, bytes.data() + done, count - done, place + static_cast<int64_t>(done));
    if (got == 0) break;
    if (got > 0) {
      done += static_cast<size_t>(got);
    } else if (errno != EINTR) {
      fail_with("cannot be read");
    }
  }
  bytes.resize(done);
  return bytes;
}

void CaptionJournal::refuse() const {
  host::fail("{}: is no journal of ocelli caption: choose another --journal", name_);
}

void CaptionJournal::fail_with(const char* what) const {
  host::fail("{}: {}: {}", name_, what, std::strerror(errno));
}

}  // namespace ocelli::app
