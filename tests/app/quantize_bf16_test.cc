// `ocelli quantize --weights bf16`, and --weights bf16 with its cache.
#include "kernels/checkpoint.h"
#include "tests/app/command.h"

namespace ocelli::app {
namespace {

const std::string kQuestion = "'" + demo_picture() + "' 'What do you see?'";

std::string demo() {
  return source_path("assets/demo").string();
}

std::string answer(const std::string& options) {
  const Finished run = run_ocelli("ask -q " + options + " " + kQuestion);
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.err, "");
  return run.out;
}

TEST(QuantizeBf16, APackedModelAnswersOnEveryBackend) {
  const TemporaryFolder folder;
  const std::string packed = (folder.path() / "model.ocelli").string();
  const Finished run = run_ocelli("quantize --weights bf16 " + demo() + " " + packed);
  EXPECT_EQ(run.code, 0) << run.err;
  const std::string expected = answer("-m " + demo());
  for (const char* backend : {"cpu", "reference", "u280-emulated"}) {
    EXPECT_EQ(answer("-m " + packed + " --backend " + backend), expected) << backend;
  }
  EXPECT_EQ(answer("--check -m " + packed), expected);
  EXPECT_EQ(run_ocelli("inspect --verify " + packed).code, 0);
  const auto checkpoint = kernels::Checkpoint::open(packed);
  EXPECT_TRUE(checkpoint.tensors().at("language_model.lm_head.weight").in_pairs());
  EXPECT_TRUE(checkpoint.tensors().at("connector._connector.0.weight").in_pairs());
}

TEST(QuantizeBf16, WritesTheSameBytesWhateverTheThreads) {
  const TemporaryFolder folder;
  std::string files[2];
  for (int i = 0; i < 2; ++i) {
    const std::string packed = (folder.path() / std::to_string(i)).string();
    const std::string settings = "--weights bf16 --head f16 --threads " + std::to_string(1 + 2 * i);
    EXPECT_EQ(run_ocelli("quantize -q " + settings + " " + demo() + " " + packed).code, 0);
    files[i] = read_file(packed);
  }
  EXPECT_EQ(files[0], files[1]);
}

TEST(QuantizeBf16, WhatBelongsToInt8IsUsage) {
  for (const std::string wrong : {"--head int8", "--group 64"}) {
    const Finished run = run_ocelli("quantize --weights bf16 " + wrong + " " + demo() + " never");
    EXPECT_EQ(run.code, 2);
    EXPECT_NE(run.err.find(wrong.substr(0, 6)), std::string::npos) << run.err;
  }
}

TEST(QuantizeBf16, TheCacheAndMemoryAnswerAlike) {
  const TemporaryFolder cache;
  const std::string environment = "XDG_CACHE_HOME=" + cache.path().string();
  const std::string ask = "ask -q --weights bf16 " + kQuestion;
  const std::string expected = answer("");
  for (int i = 0; i < 2; ++i) EXPECT_EQ(run_ocelli(ask, "", environment).out, expected);
  EXPECT_EQ(answer("--weights bf16 --no-cache"), expected);
}

}  // namespace
}  // namespace ocelli::app
