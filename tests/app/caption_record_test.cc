// A record's line of JSON, there and back, and lines that are none.
#include "app/caption_record.h"

#include <random>

#include "host/error.h"
#include "tests/app/command.h"
#include "tests/host/expect_error.h"

namespace ocelli::app {
namespace {

CaptionRecord sample() {
  CaptionRecord record;
  record.path = "photos/ü \"1\".jpg";
  record.sha256 = std::string(64, 'a');
  record.caption = "A \"red\" house,\na tree \U0001F333";
  record.tokens = 9;
  record.confidence = 0.98765;
  record.milliseconds = 1234.56;
  record.model = "demo@0123456789ab";
  record.settings = "0123456789abcdef";
  return record;
}

TEST(CaptionRecords, StandInOneLineInThisOrder) {
  EXPECT_EQ(to_line(sample()),
            "{\"path\":\"photos/ü \\\"1\\\".jpg\",\"sha256\":\"" + std::string(64, 'a') +
                "\",\"status\":\"ok\",\"caption\":\"A \\\"red\\\" house,\\na tree "
                "\U0001F333\",\"tokens\":9,\"confidence\":0.9877,\"milliseconds\":1234.6,"
                "\"model\":\"demo@0123456789ab\",\"settings\":\"0123456789abcdef\"}\n");
}

TEST(CaptionRecords, OfFailuresHaveAReasonAndNoCaption) {
  CaptionRecord record = sample();
  record.status = CaptionStatus::kError;
  record.sha256 = "";
  record.error = "is empty";
  record.milliseconds = 0;
  EXPECT_EQ(to_line(record),
            "{\"path\":\"photos/ü \\\"1\\\".jpg\",\"status\":\"error\",\"milliseconds\":0.0,"
            "\"model\":\"demo@0123456789ab\",\"settings\":\"0123456789abcdef\","
            "\"error\":\"is empty\"}\n");
}

TEST(CaptionRecords, ComeBackAsTheyWere) {
  std::mt19937 random(3);
  for (int i = 0; i < 500; ++i) {
    CaptionRecord record = sample();
    record.status = static_cast<CaptionStatus>(random() % 7);
    record.caption.clear();
    for (int k = static_cast<int>(random() % 20); k > 0; --k) {
      record.caption += static_cast<char>(random() % 128);
    }
    record.tokens = static_cast<int>(random() % 1000);
    record.confidence = random() % 10'001 / 1e4;
    record.milliseconds = random() % 100'000 / 10.0;
    record.retried = random() % 2 == 0;
    if (random() % 3 == 0) record.sha256 = "";
    if (record.status == CaptionStatus::kError) {
      record.error = "a reason";
      record.caption = "";
      record.tokens = 0;
      record.confidence = 0;
    }
    EXPECT_EQ(parse_caption_record(to_line(record), "here"), record) << to_line(record);
  }
}

TEST(CaptionRecords, PutTheReplacementCharacterForBytesThatAreNoUtf8) {
  CaptionRecord record = sample();
  record.path = "bad\xFF.png";
  EXPECT_EQ(parse_caption_record(to_line(record), "here").path, "bad\uFFFD.png");
}

TEST(CaptionRecords, PassOverKeysThatAreNotKnown) {
  EXPECT_EQ(
      parse_caption_record(R"({"path":"a","status":"ok","caption":"b","later":[1]})", "x").caption,
      "b");
}

TEST(CaptionRecords, HaveANameForEveryStatus) {
  for (int i = 0; i < 7; ++i) {
    const auto status = static_cast<CaptionStatus>(i);
    EXPECT_EQ(parse_caption_status(name(status)), status);
  }
  EXPECT_FALSE(parse_caption_status("OK"));
  EXPECT_FALSE(parse_caption_status(""));
}

TEST(CaptionRecords, AreRefusedWhereTheyAreNone) {
  const auto error = [](const std::string& line) {
    return error_of([&] { parse_caption_record(line, "c.jsonl:7"); });
  };
  for (const char* line :
       {"", "{", "[]", "null", "7", R"({"status":"ok","caption":"b"})",
        R"({"path":"a","caption":"b"})", R"({"path":"a","status":"ok"})",
        R"({"path":"a","status":"error"})", R"({"path":7,"status":"ok","caption":"b"})",
        R"({"path":"a","status":"ok","caption":"b","tokens":-1})",
        R"({"path":"a","status":"ok","caption":"b","confidence":1.5})",
        R"({"path":"a","status":"ok","caption":"b","milliseconds":-1})",
        R"({"path":"a","status":"ok","caption":"b","tokens":1e99})"}) {
    EXPECT_TRUE(error(line).starts_with("c.jsonl:7")) << line << "\n" << error(line);
  }
  EXPECT_TRUE(holds(error(R"({"path":"a","status":"fine","caption":"b"})"),
                    "the status \"fine\" is not known"));
}

}  // namespace
}  // namespace ocelli::app
