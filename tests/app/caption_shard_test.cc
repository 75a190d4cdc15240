// ocelli caption --shard: what the shares of a run write, and what they have in common with the
// whole.
#include "app/shard.h"
#include "tests/app/photos.h"

namespace ocelli::app {
namespace {

constexpr int kShards = 3;

// Photos in a folder and its subfolders, with a copy, a broken one, and one that is no picture.
class Shares : public testing::Test {
 protected:
  Shares() {
    const std::vector<fs::path> photos = write_photos(folder_ / "photos", 10);
    write_photos(folder_ / "photos" / "more", 4);
    fs::copy(photos[0], folder_ / "photos" / "copy.png");
    write_file(folder_ / "photos" / "broken.png", read_file(photos[0]).substr(0, 1000));
    write_file(folder_ / "photos" / "readme.txt", "no picture");
  }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  fs::path part(int index) const { return part_path(path("captions.jsonl"), {index, kShards}); }

  // The folder is named so that it is the same in every run of the test, as then is what each shard
  // holds.
  Finished caption(const std::string& arguments) const {
    return run_ocelli("caption -r photos " + arguments, "",
                      "cd " + folder_.path().string() + " &&");
  }
  Finished caption_share(int index, const std::string& more = "") const {
    return caption("-o " + path("captions.jsonl") + " --shard " + to_text({index, kShards}) + more);
  }

  TemporaryFolder folder_;
};

TEST_F(Shares, MergedAreTheTableOfOneRun) {
  const std::string more = " --prefix 'scene: '";
  ASSERT_EQ(caption("-q -o " + path("whole.jsonl") + more).code, 0);
  for (int index = 1; index <= kShards; ++index) {
    const Finished run = caption_share(index, more);
    ASSERT_EQ(run.code, 0) << run.err;
    EXPECT_EQ(run.err.find("shard " + to_text({index, kShards}) + ": "), 0U) << run.err;
    EXPECT_NE(run.err.find(" of 16 images"), std::string::npos) << run.err;
  }
  const Finished merged = run_ocelli("merge -q " + path("captions.part-*-of-3.jsonl"));
  EXPECT_EQ(merged.code, 0) << merged.err;
  const std::string whole = without_times(read_file(path("whole.jsonl")));
  EXPECT_EQ(without_times(merged.out), whole);
  EXPECT_EQ(std::ranges::count(whole, '\n'), 16);
  EXPECT_NE(whole.find("\"error\""), std::string::npos);
}

TEST_F(Shares, TogetherWriteTheSidecarsOfOneRun) {
  ASSERT_EQ(caption("-q --format txt --out-dir " + path("whole")).code, 0);
  for (int index = 1; index <= kShards; ++index) {
    const Finished run =
        caption("-q --out-dir " + path("shares") + " --shard " + to_text({index, kShards}));
    ASSERT_EQ(run.code, 0) << run.err;
  }
  size_t sidecars = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder_ / "whole")) {
    if (entry.path().extension() != ".txt") continue;
    ++sidecars;
    const fs::path other = folder_ / "shares" / entry.path().lexically_relative(folder_ / "whole");
    EXPECT_EQ(read_file(other), read_file(entry.path())) << other;
  }
  EXPECT_EQ(sidecars, 15U);
  // They share a folder, and no journal.
  EXPECT_TRUE(fs::exists(folder_ / "shares" / "ocelli-captions.part-2-of-3.journal"));
  EXPECT_FALSE(fs::exists(folder_ / "shares" / "ocelli-captions.journal"));
}

// Two pictures of one sidecar are refused by all shards, whichever of them holds which.
TEST_F(Shares, RefuseTwoPicturesOfOneSidecar) {
  write_photos(folder_ / "photos", 1);
  fs::copy(folder_ / "photos" / "copy.png", folder_ / "photos" / "copy.jpg");
  for (int index = 1; index <= 2; ++index) {
    expect_failure(caption("--shard " + to_text({index, 2})), "copy.txt");
  }
}

// kill -9 leaves a journal that ends anywhere, and no part.
TEST_F(Shares, GoOnAfterAKill) {
  ASSERT_EQ(caption_share(1, " -q").code, 0);
  const std::string undisturbed = read_file(part(1));
  const fs::path journal = part_path(path("captions.jsonl.journal"), {1, kShards});
  const std::string lines = read_file(journal);
  fs::remove(part(1));
  write_file(journal, lines.substr(0, lines.size() / 2));
  const Finished again = caption_share(1);
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_NE(again.err.find("its end was torn"), std::string::npos) << again.err;
  EXPECT_NE(again.err.find("were done before"), std::string::npos) << again.err;
  EXPECT_EQ(without_times(read_file(part(1))), without_times(undisturbed));
}

TEST_F(Shares, WithoutPicturesAreEmptyParts) {
  const std::string picture = path("photos/copy.png");
  const int other = Shard{1, 2}.holds(picture) ? 2 : 1;
  const std::string share =
      "caption " + picture + " -o " + path("one.jsonl") + " --shard " + to_text({other, 2});
  const Finished run = run_ocelli(share + " -m /nonexistent");
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.out, "");
  const fs::path empty = part_path(path("one.jsonl"), {other, 2});
  EXPECT_TRUE(fs::exists(empty));
  EXPECT_EQ(read_file(empty), "");
  EXPECT_EQ(run_ocelli(share).code, 0);  // once more
}

TEST_F(Shares, KeepOutOfAnotherSplit) {
  ASSERT_EQ(caption_share(1, " -q").code, 0);
  const std::string table = "-o " + path("captions.jsonl");
  const Finished table_refused = caption(table + " --shard 1/4");
  EXPECT_EQ(table_refused.code, 2);
  EXPECT_NE(table_refused.err.find("a run in 3 shards"), std::string::npos) << table_refused.err;
  // The part is not there yet, but its journal is.
  fs::remove(part(1));
  EXPECT_EQ(caption(table + " --shard 1/4").code, 2);
  EXPECT_EQ(caption("-q -o " + path("others.jsonl") + " --shard 1/4").code, 0);
}

TEST_F(Shares, UseNamesOfTheirOwnForJournalsThatAreNamed) {
  ASSERT_EQ(caption_share(2, " -q --journal " + path("done")).code, 0);
  EXPECT_TRUE(fs::exists(path("done.part-2-of-3")));
  EXPECT_FALSE(fs::exists(path("done")));
}

TEST_F(Shares, PassThroughStandardOutput) {
  std::string lines;
  for (int index = 1; index <= 2; ++index) {
    const Finished run = caption("-q -o - --shard " + to_text({index, 2}));
    EXPECT_EQ(run.code, 0) << run.err;
    lines += run.out;
  }
  EXPECT_EQ(std::ranges::count(lines, '\n'), 16);
  EXPECT_EQ(fs::exists("-.part-1-of-2"), false);
}

TEST_F(Shares, SayHowFarTheyAreInALog) {
  const Finished run = caption_share(1, " --log-every 1e-9");
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_NE(run.err.find("\nshard 1/3: 1/"), std::string::npos) << run.err;
  EXPECT_EQ(run.err.find('\r'), std::string::npos);
  const Finished silent = caption_share(2, " --log-every 0");
  EXPECT_EQ(silent.err.find("shard 2/3: 1/"), std::string::npos) << silent.err;
}

TEST_F(Shares, OfADryRunAreListed) {
  std::string all;
  for (int index = 1; index <= kShards; ++index) {
    const Finished run = caption_share(index, " -q --dry-run");
    EXPECT_EQ(run.code, 0) << run.err;
    EXPECT_NE(run.out.find("-> " + part(index).string()), std::string::npos) << run.out;
    all += run.out;
  }
  EXPECT_NE(all.find("photos/more/"), std::string::npos) << all;
  EXPECT_FALSE(fs::exists(part(1)));
}

TEST_F(Shares, RefuseWhatTheyCannotDo) {
  const auto refused = [&](const std::string& arguments, const std::string& reason) {
    const Finished run = caption(arguments);
    EXPECT_EQ(run.code, 2) << arguments << run.err;
    EXPECT_NE(run.err.find(reason), std::string::npos) << run.err;
  };
  refused("-o " + path("a.csv") + " --shard 1/2", "ocelli merge --format csv");
  refused("--format imagefolder --shard 1/2", "ocelli merge --format imagefolder");
  refused("--shard 0/2", "the first of eight is 1/8");
  refused("--shard auto/2", "no launcher says");
}

}  // namespace
}  // namespace ocelli::app
