// `ocelli quantize`, packed models wherever a model goes, and --weights int8 with its cache.
#include <cstring>
#include <nlohmann/json.hpp>

#include "kernels/checkpoint.h"
#include "tests/app/command.h"

namespace ocelli::app {
namespace {

using nlohmann::json;

const std::string kQuestion = "'" + demo_picture() + "' 'What do you see?'";

std::string demo() {
  return source_path("assets/demo").string();
}

// A packed model in a folder of its own; what it is made of is said by the arguments.
class Packed {
 public:
  explicit Packed(const std::string& source, const std::string& options = "") {
    const Finished run = run_ocelli("quantize " + source + " " + path() + " " + options);
    EXPECT_EQ(run.code, 0) << run.err;
    EXPECT_EQ(run.err, "");
    EXPECT_NE(run.out.find("MB, from "), std::string::npos) << run.out;
  }
  std::string path() const { return (folder_ / "model.ocelli").string(); }
  const TemporaryFolder& folder() const { return folder_; }

 private:
  TemporaryFolder folder_;
};

std::string answer(const std::string& options) {
  const Finished run = run_ocelli("ask -q " + options + " " + kQuestion);
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.err, "");
  return run.out;
}

size_t files_in(const fs::path& folder) {
  size_t count = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    count += entry.is_regular_file() ? 1 : 0;
  }
  return count;
}

TEST(Quantize, APackedModelAnswersOnEveryBackend) {
  const Packed packed(demo());
  EXPECT_LT(fs::file_size(packed.path()), fs::file_size(demo() + "/model.safetensors") * 6 / 10);
  EXPECT_EQ(files_in(packed.folder().path()), 1U);
  const std::string expected = answer("-m " + demo());
  for (const char* backend : {"cpu", "reference", "u280-emulated"}) {
    EXPECT_EQ(answer("-m " + packed.path() + " --backend " + backend), expected) << backend;
  }
  EXPECT_EQ(answer("--check -m " + packed.path()), expected);
  const Finished tokens = run_ocelli("tokenize --tokenizer " + packed.path() + " 'What is this?'");
  EXPECT_EQ(tokens.out, run_ocelli("tokenize 'What is this?'").out);
}

TEST(Quantize, WritesTheSameBytesWhateverTheThreads) {
  const Packed one(demo(), "--threads 1");
  const Packed three(demo(), "--threads 3");
  EXPECT_EQ(read_file(one.path()), read_file(three.path()));
}

TEST(Quantize, GroupsAndHeadAreAsAsked) {
  const Packed packed(demo(), "--group 64 --head f16");
  const auto checkpoint = kernels::Checkpoint::open(packed.path());
  const auto& tensors = checkpoint.tensors();
  EXPECT_EQ(tensors.at("connector._connector.0.weight").group, 64);
  // 3 · 12 · 12 is no multiple of 64: the whole row.
  const std::string tower = "vision_tower._vision_tower.vision_model.";
  EXPECT_EQ(tensors.at(tower + "embeddings.patch_embedding.weight").group, 432);
  EXPECT_EQ(tensors.at("language_model.lm_head.weight").dtype, kernels::DType::kF16);
  // The last block and what follows it are not run, and not kept.
  EXPECT_FALSE(tensors.contains(tower + "post_layernorm.weight"));
  EXPECT_EQ(answer("-m " + packed.path()), answer(""));
}

TEST(Quantize, StoriesOfEveryKind) {
  const fs::path golden = source_path("tests/golden/stories");
  const std::string tokenizer = " --tokenizer " + (golden / "tokenizer.bin").string();
  for (const char* name :
       {"tied.v0.bin", "tied.v2.bin", "grouped.v0.bin", "grouped.v1.bin", "grouped.v2.bin"}) {
    for (const char* head : {" --head int8", " --head f16"}) {
      SCOPED_TRACE(std::string(name) + head);
      const Packed packed((golden / name).string(), tokenizer + head);
      const std::string telling = " -n 12 -t 0 a ";
      const Finished run = run_ocelli("story -q -m " + packed.path() + telling);
      EXPECT_EQ(run.code, 0) << run.err;
      // What is quantised already stays as it is.
      if (!std::string(name).ends_with("v2.bin")) continue;
      const Finished source =
          run_ocelli("story -q -m " + (golden / name).string() + tokenizer + telling);
      EXPECT_EQ(run.out, source.out);
    }
  }
  for (const char* name : {"hf_tied", "hf_grouped"}) {
    const Packed packed((golden / name).string());
    EXPECT_EQ(run_ocelli("story -q -m " + packed.path() + " -n 12 -t 0 a").code, 0) << name;
  }
}

TEST(Quantize, PerplexityOfQuantisedStoriesIsTheirSources) {
  const Packed packed(source_path("assets/stories/stories.bin").string());
  const std::string text = source_path("tests/golden/stories/documents.txt").string();
  EXPECT_EQ(run_ocelli("perplexity -q -m " + packed.path() + " " + text).out,
            run_ocelli("perplexity -q " + text).out);
}

TEST(Quantize, NothingIsLostByAccident) {
  const Packed packed(demo());
  const std::string before = read_file(packed.path());
  expect_failure(run_ocelli("quantize " + demo() + " " + packed.path()), "--force");
  EXPECT_EQ(run_ocelli("quantize -q -f --group 64 " + demo() + " " + packed.path()).code, 0);
  EXPECT_NE(read_file(packed.path()), before);
  const std::string again = (packed.folder() / "again").string();
  expect_failure(run_ocelli("quantize " + packed.path() + " " + again), "is packed already");
  expect_failure(run_ocelli("quantize " + demo() + " " + packed.folder().path().string()),
                 "is a directory");
  expect_failure(run_ocelli("quantize " + demo() + " /nowhere/at/all"), "/nowhere/at/all");
  EXPECT_EQ(files_in(packed.folder().path()), 1U);
}

TEST(Quantize, TheSourceIsNotOverwritten) {
  const TemporaryFolder folder;
  fs::copy(demo(), folder / "model");
  const std::string weights = (folder / "model/model.safetensors").string();
  expect_failure(run_ocelli("quantize -f " + (folder / "model").string() + " " + weights),
                 "is what the model is read from");
}

TEST(Quantize, NanIsRefusedByNameAndLeavesNothing) {
  const TemporaryFolder folder;
  fs::copy(demo(), folder / "model");
  const fs::path weights = folder / "model/model.safetensors";
  std::string bytes = read_file(weights);
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  const std::string name = "language_model.model.layers.1.mlp.fc2.weight";
  const uint64_t begin = json::parse(bytes.substr(8, header))[name]["data_offsets"][0];
  bytes[8 + header + begin + 1] = '\x7E';
  write_file(weights, bytes);
  expect_failure(
      run_ocelli("quantize " + (folder / "model").string() + " " + (folder / "packed").string()),
      name);
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    EXPECT_EQ(entry.path().filename(), "model");
  }
}

TEST(Quantize, WrongOptionsAreUsage) {
  for (const char* wrong : {"--weights int3", "--group 63", "--head int2", "--threads 0"}) {
    EXPECT_EQ(run_ocelli("quantize " + demo() + " /tmp/never " + wrong).code, 2) << wrong;
  }
}

// --- Packed files that are broken ---

TEST(BrokenPackedModel, IsRefusedByOneLine) {
  const Packed packed(demo());
  const std::string whole = read_file(packed.path());
  const std::string ask = "ask -q -m " + packed.path() + " " + kQuestion;
  for (const size_t size : {size_t{7}, size_t{5'000}, whole.size() / 2, whole.size() - 1}) {
    write_file(packed.path(), whole.substr(0, size));
    expect_failure(run_ocelli(ask), packed.path());
  }
  // In the header: found at once.
  std::string damaged = whole;
  damaged[whole.find("pad_token_id")] = 'q';
  write_file(packed.path(), damaged);
  expect_failure(run_ocelli(ask), "checksum of its header");
  // In a weight: found by whoever looks.
  damaged = whole;
  damaged[whole.size() * 3 / 4] ^= 1;
  write_file(packed.path(), damaged);
  EXPECT_EQ(run_ocelli("inspect " + packed.path()).code, 0);
  expect_failure(run_ocelli("inspect --verify " + packed.path()), "is damaged: the checksum of");
  write_file(packed.path(), whole);
  EXPECT_EQ(run_ocelli("inspect --verify " + packed.path()).code, 0);
}

// A directory may hold packed weights as well; here its config asks for others.
TEST(BrokenPackedModel, AConfigOfOtherShapesIsRefused) {
  const TemporaryFolder folder;
  fs::copy(demo(), folder / "model");
  const Packed packed((folder / "model").string());
  fs::create_directory(folder / "mixed");
  for (const char* name : {"vocab.json", "merges.txt", "added_tokens.json"}) {
    fs::copy(folder / "model" / name, folder / "mixed" / name);
  }
  json config = json::parse(read_file(folder / "model/config.json"));
  config["text_config"]["intermediate_size"] = 1024;
  write_file(folder / "mixed/config.json", config.dump());
  fs::copy(packed.path(), folder / "mixed/model.safetensors");
  expect_failure(run_ocelli("ask -q -m " + (folder / "mixed").string() + " " + kQuestion),
                 "fc1.weight\" is [512, 192], wanted [1024, 192]");
}

TEST(BrokenPackedModel, APlainSafetensorsFileIsNoModel) {
  expect_failure(run_ocelli("ask -q -m " + demo() + "/model.safetensors " + kQuestion),
                 "name the directory");
}

// --- The cache ---

TEST(Cache, IsFilledOnceAndUsedFromThenOn) {
  const TemporaryFolder folder;
  const std::string environment = "XDG_CACHE_HOME=" + folder.path().string();
  const std::string arguments = "ask --weights int8 -m " + demo() + " " + kQuestion;
  const Finished first = run_ocelli(arguments, "", environment);
  EXPECT_EQ(first.code, 0) << first.err;
  EXPECT_NE(first.err.find("packing "), std::string::npos) << first.err;
  ASSERT_EQ(files_in(folder.path()), 1U);
  const Finished second = run_ocelli(arguments, "", environment);
  EXPECT_EQ(second.out, first.out);
  EXPECT_EQ(second.err.find("packing "), std::string::npos) << second.err;
  EXPECT_EQ(files_in(folder.path()), 1U);
}

TEST(Cache, KnowsOtherFilesAndMendsBrokenOnes) {
  const TemporaryFolder folder;
  fs::copy(demo(), folder / "model");
  fs::create_directory(folder / "cache");
  const std::string environment = "XDG_CACHE_HOME=" + (folder / "cache").string();
  const std::string arguments =
      "ask -q --weights int8 -m " + (folder / "model").string() + " " + kQuestion;
  const std::string expected = run_ocelli(arguments, "", environment).out;
  ASSERT_EQ(files_in(folder / "cache"), 1U);
  fs::path cached;
  for (const auto& entry : fs::recursive_directory_iterator(folder / "cache")) {
    if (entry.is_regular_file()) cached = entry.path();
  }
  fs::resize_file(cached, 1000);
  EXPECT_EQ(run_ocelli(arguments, "", environment).out, expected);
  EXPECT_GT(fs::file_size(cached), 1'000'000U);
  // The same bytes at another time are another source.
  fs::last_write_time(folder / "model/model.safetensors", fs::file_time_type::clock::now());
  EXPECT_EQ(run_ocelli(arguments, "", environment).out, expected);
  EXPECT_EQ(files_in(folder / "cache"), 2U);
}

TEST(Cache, IsLeftAloneWhenAskedOrWhenItCannotBeWritten) {
  const TemporaryFolder folder;
  const std::string arguments = "--weights int8 -m " + demo() + " " + kQuestion;
  const Finished kept =
      run_ocelli("ask -q --no-cache " + arguments, "", "XDG_CACHE_HOME=" + folder.path().string());
  EXPECT_EQ(kept.code, 0) << kept.err;
  EXPECT_EQ(kept.err, "");
  EXPECT_EQ(files_in(folder.path()), 0U);
  write_file(folder / "file", "no directory");
  const Finished barred =
      run_ocelli("ask " + arguments, "", "XDG_CACHE_HOME=" + (folder / "file").string());
  EXPECT_EQ(barred.code, 0) << barred.err;
  EXPECT_EQ(barred.out, kept.out);
  EXPECT_NE(barred.err.find("packing into memory"), std::string::npos) << barred.err;
}

TEST(Cache, TwoAtOnceAgree) {
  const TemporaryFolder folder;
  const std::string one = "XDG_CACHE_HOME=" + folder.path().string() +
                          " '" OCELLI_BINARY "' ask -q --weights int8 -m " + demo() + " " +
                          kQuestion;
  const std::string out = (folder / "out").string();
  const std::string both = one + " >" + out + "1 & " + one + " >" + out + "2 ; wait";
  ASSERT_EQ(std::system(both.c_str()), 0);
  const std::string first = read_file(out + "1");
  EXPECT_FALSE(first.empty());
  EXPECT_EQ(first, read_file(out + "2"));
  EXPECT_EQ(files_in(folder / "ocelli"), 1U);
}

}  // namespace
}  // namespace ocelli::app
