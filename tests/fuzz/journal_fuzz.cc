// Feeds any bytes to the reader of a captioning run's journal: they must be refused with
// host::Error and left alone, or become a journal that takes a record, finds it, and reads the same
// afterwards.
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "app/caption_journal.h"
#include "host/error.h"

namespace {

using namespace ocelli;  // NOLINT(google-build-using-namespace): a program of one file

constexpr const char* kSettings = "0123456789abcdef";

// A file that goes with the program.
class JournalFile {
 public:
  JournalFile() {
    std::string pattern = (std::filesystem::temp_directory_path() / "ocelli-fuzz-XXXXXX").string();
    const int descriptor = mkstemp(pattern.data());
    OCELLI_CHECK(descriptor >= 0, "{}", pattern);
    close(descriptor);
    path_ = pattern;
  }
  ~JournalFile() { std::filesystem::remove(path_); }
  JournalFile(const JournalFile&) = delete;
  JournalFile& operator=(const JournalFile&) = delete;

  const std::string& path() const { return path_; }
  void write(std::string_view bytes) const { std::ofstream(path_, std::ios::binary) << bytes; }
  std::string read() const {
    std::ifstream file(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

 private:
  std::string path_;
};

app::CaptionRecord new_record() {
  app::CaptionRecord record;
  record.path = "new.png";
  record.sha256 = host::hex(host::sha256(std::string_view("new")));
  record.caption = "A house.";
  record.settings = kSettings;
  return record;
}

// A line of captions.jsonl, with nothing to protect it.
void read_record(std::string_view text) {
  try {
    const app::CaptionRecord record = app::parse_caption_record(text, "fuzz");
    OCELLI_CHECK(record.confidence >= 0 && record.confidence <= 1, "{}", record.confidence);
    // Rounded as it is written, it is the same ever after.
    const std::string line = app::to_line(record);
    OCELLI_CHECK(app::to_line(app::parse_caption_record(line, "line")) == line, "{}", line);
  } catch (const host::Error&) {  // the one way to refuse
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const JournalFile file;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  read_record(text);
  file.write(text);
  const app::CaptionRecord record = new_record();
  const auto digest = host::sha256(std::string_view("new"));
  size_t resumable = 0;
  try {
    app::CaptionJournal journal(file.path(), kSettings);
    const int64_t place = journal.append(record);
    OCELLI_CHECK(journal.find(digest) == place && journal.read(place) == record, "{}", place);
    resumable = journal.resumable();
  } catch (const host::Error&) {
    OCELLI_CHECK(file.read() == text, "a file of {} bytes was changed", size);
    return 0;
  }
  const app::CaptionJournal again(file.path(), kSettings);
  OCELLI_CHECK(again.resumable() == resumable, "{} and {}", again.resumable(), resumable);
  OCELLI_CHECK(again.find(digest).has_value(), "of {} bytes", size);
  return 0;
}
