// The journal of a captioning run: what was written is found again, whatever became of the file.
#include "app/caption_journal.h"

#include <sys/resource.h>

#include <csignal>
#include <random>

#include "host/error.h"
#include "tests/app/command.h"
#include "tests/host/expect_error.h"

namespace ocelli::app {
namespace {

constexpr const char* kSettings = "0123456789abcdef";

host::Sha256Digest digest_of(int number) {
  return host::sha256(fmt::format("picture {}", number));
}

CaptionRecord record(int number, CaptionStatus status = CaptionStatus::kOk) {
  CaptionRecord made;
  made.path = fmt::format("photos/{}.jpg", number);
  made.sha256 = host::hex(digest_of(number));
  made.status = status;
  made.caption = fmt::format("A \"caption\"\nof {} ✓", number);
  made.tokens = 7;
  made.confidence = 0.5;
  made.milliseconds = 12.5;
  made.model = "demo@0123";
  made.settings = kSettings;
  return made;
}

class Journal : public testing::Test {
 protected:
  std::string path() const { return (folder_ / "j").string(); }
  // A journal with records of pictures 0 … count − 1; returns its bytes.
  std::string fill(int count) const {
    CaptionJournal journal(path(), kSettings);
    for (int i = 0; i < count; ++i) journal.append(record(i));
    return read_file(path());
  }
  // Whether exactly the pictures `numbers` of 0 … 9 are found, each with its record.
  void expect_found(const std::set<int>& numbers) const {
    const CaptionJournal journal(path(), kSettings);
    for (int i = 0; i < 10; ++i) {
      const auto place = journal.find(digest_of(i));
      EXPECT_EQ(place.has_value(), numbers.contains(i)) << i;
      if (place) {
        EXPECT_EQ(journal.read(*place), record(i));
      }
    }
    EXPECT_EQ(journal.resumable(), numbers.size());
  }

  TemporaryFolder folder_;
};

TEST_F(Journal, FindsByContentWhatAnEarlierRunAdded) {
  fill(3);
  expect_found({0, 1, 2});
  const CaptionJournal journal(path(), kSettings);
  EXPECT_EQ(journal.repairs(), "");
  EXPECT_EQ(journal.others(), 0U);
}

TEST_F(Journal, KeepsRecordsOfOtherSettingsApart) {
  fill(2);
  CaptionRecord other = record(5);
  other.settings = "ffff";
  {
    CaptionJournal journal(path(), "ffff");
    EXPECT_EQ(journal.others(), 2U);
    EXPECT_FALSE(journal.find(digest_of(0)));
    journal.append(other);
    EXPECT_TRUE(journal.find(digest_of(5)));
  }
  expect_found({0, 1});
}

TEST_F(Journal, OfTwoRecordsOfAPictureTheLaterCounts) {
  CaptionRecord later = record(1);
  later.caption = "better";
  {
    CaptionJournal journal(path(), kSettings);
    journal.append(record(1));
    journal.append(later);
    EXPECT_EQ(journal.read(*journal.find(digest_of(1))), later);
  }
  const CaptionJournal journal(path(), kSettings);
  EXPECT_EQ(journal.resumable(), 1U);
  EXPECT_EQ(journal.read(*journal.find(digest_of(1))), later);
}

TEST_F(Journal, ForgetsFailuresOnRequest) {
  CaptionJournal journal(path(), kSettings);
  journal.append(record(0));
  for (int i = 1; i <= static_cast<int>(CaptionStatus::kError); ++i) {
    journal.append(record(i, static_cast<CaptionStatus>(i)));
  }
  journal.forget_failures();
  EXPECT_TRUE(journal.find(digest_of(0)));
  for (int i = 1; i <= static_cast<int>(CaptionStatus::kError); ++i) {
    EXPECT_FALSE(journal.find(digest_of(i))) << i;
  }
}

TEST_F(Journal, ARecordWithoutContentIsKeptButNeverFound) {
  CaptionJournal journal(path(), kSettings);
  CaptionRecord unreadable = record(1, CaptionStatus::kError);
  unreadable.sha256 = "";
  unreadable.caption = "";
  unreadable.tokens = 0;
  unreadable.confidence = 0;
  unreadable.error = "no such file";
  const int64_t place = journal.append(unreadable);
  EXPECT_EQ(journal.read(place), unreadable);
  EXPECT_EQ(journal.resumable(), 0U);
}

TEST_F(Journal, RepairsATornEndWhereverItIsTorn) {
  const std::string whole = fill(3);
  const size_t last = whole.rfind('\n', whole.size() - 2) + 1;
  for (size_t size = last; size < whole.size(); ++size) {
    write_file(path(), whole.substr(0, size));
    {
      CaptionJournal journal(path(), kSettings);
      EXPECT_EQ(journal.repairs().empty(), size == last) << journal.repairs();
      EXPECT_FALSE(journal.find(digest_of(2)));
      journal.append(record(2));
    }
    EXPECT_EQ(read_file(path()), whole) << size;
  }
}

TEST_F(Journal, ATornBeginningBecomesANewJournal) {
  const std::string whole = fill(0);
  for (size_t size = 0; size < whole.size(); ++size) {
    write_file(path(), whole.substr(0, size));
    fill(1);
    expect_found({0});
  }
}

TEST_F(Journal, PassesOverWhatIsDamagedAndKeepsTheRest) {
  const std::string whole = fill(4);
  std::mt19937 random(1);
  const size_t begin = whole.find("photos/1.jpg");
  for (int i = 0; i < 30; ++i) {
    std::string damaged = whole;
    damaged[begin + random() % 200] ^= static_cast<char>(1U << random() % 3);
    write_file(path(), damaged);
    const CaptionJournal journal(path(), kSettings);
    EXPECT_TRUE(holds(journal.repairs(), "damaged")) << damaged;
    EXPECT_FALSE(journal.find(digest_of(1)));
    for (const int other : {0, 2, 3}) EXPECT_TRUE(journal.find(digest_of(other))) << other;
    EXPECT_EQ(read_file(path()), damaged);  // nothing behind it is cut off
  }
}

TEST_F(Journal, ZeroesThatAPowerCutLeavesAtTheEndAreCutOff) {
  const std::string whole = fill(2);
  write_file(path(), whole + std::string(5000, '\0'));
  expect_found({0, 1});
  EXPECT_EQ(read_file(path()), whole);
}

TEST_F(Journal, RefusesWhatIsNoJournalAndLeavesItAlone) {
  for (const std::string& text :
       {std::string("A caption\n"), std::string("{\"path\":\"a.jpg\"}\n"), std::string(3000, 'x'),
        std::string(5000, '\0'), read_file(demo_picture())}) {
    write_file(path(), text);
    EXPECT_TRUE(holds(error_of([&] { const CaptionJournal journal(path(), kSettings); }),
                      "is no journal of ocelli caption: choose another --journal"));
    EXPECT_EQ(read_file(path()), text);
  }
}

TEST_F(Journal, RefusesPlacesWhereNoneCanBe) {
  const auto error = [](const fs::path& path) {
    return error_of([&] { const CaptionJournal journal(path.string(), kSettings); });
  };
  EXPECT_TRUE(holds(error(folder_.path()), "Is a directory"));
  EXPECT_TRUE(holds(error(folder_ / "no/such/folder/j"), "No such file or directory"));
  ASSERT_EQ(mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  EXPECT_TRUE(holds(error(folder_ / "pipe"), "must be a regular file"));
  EXPECT_TRUE(holds(error("/dev/null"), "must be a regular file"));
}

TEST_F(Journal, BelongsToOneProcessAtATime) {
  {
    const CaptionJournal first(path(), kSettings);
    EXPECT_TRUE(holds(error_of([&] { const CaptionJournal second(path(), kSettings); }),
                      "another run is writing this journal"));
  }
  EXPECT_NO_THROW(CaptionJournal(path(), kSettings));
}

TEST_F(Journal, IsAsItWasWhenTheDiskIsFull) {
  const std::string before = fill(3);
  rlimit limit = {};
  getrlimit(RLIMIT_FSIZE, &limit);
  rlimit small = limit;
  small.rlim_cur = before.size() + 50;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  {
    CaptionJournal journal(path(), kSettings);
    setrlimit(RLIMIT_FSIZE, &small);
    EXPECT_TRUE(holds(error_of([&] { journal.append(record(3)); }), "cannot be written"));
    setrlimit(RLIMIT_FSIZE, &limit);
    EXPECT_EQ(read_file(path()), before);
    journal.append(record(4));
  }
  std::signal(SIGXFSZ, handler);
  expect_found({0, 1, 2, 4});
}

TEST_F(Journal, RemembersWhichOutputsAreItsOwn) {
  {
    CaptionJournal journal(path(), kSettings);
    EXPECT_FALSE(journal.knows_output("c.jsonl"));
    journal.add_output("c.jsonl");
    journal.add_output("c.jsonl");
  }
  const CaptionJournal journal(path(), "others");
  EXPECT_TRUE(journal.knows_output("c.jsonl"));
  EXPECT_FALSE(journal.knows_output("d.jsonl"));
  EXPECT_EQ(std::ranges::count(read_file(path()), '\n'), 2);
}

TEST_F(Journal, WithoutAPathIsAFileWithoutAName) {
  CaptionJournal journal("", kSettings);
  const int64_t place = journal.append(record(1));
  EXPECT_EQ(journal.read(place), record(1));
  EXPECT_EQ(journal.find(digest_of(1)), place);
}

TEST_F(Journal, SaysWhenAnotherProgramChangedIt) {
  CaptionJournal journal(path(), kSettings);
  const int64_t place = journal.append(record(1));
  write_file(path(), std::string(2000, '\n'));
  EXPECT_TRUE(holds(error_of([&] { journal.read(place); }), "was changed by another program"));
}

TEST_F(Journal, HoldsLongRecords) {
  CaptionRecord lengthy = record(1);
  lengthy.caption = std::string(3'000'000, 'x') + "✓";
  {
    CaptionJournal journal(path(), kSettings);
    journal.append(lengthy);
    journal.append(record(2));
  }
  const CaptionJournal journal(path(), kSettings);
  EXPECT_EQ(journal.read(*journal.find(digest_of(1))), lengthy);
  EXPECT_EQ(journal.read(*journal.find(digest_of(2))), record(2));
}

}  // namespace
}  // namespace ocelli::app
