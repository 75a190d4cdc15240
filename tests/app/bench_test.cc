// `ocelli bench`: the shape of what it reports, and its counts of bytes and operations. No times.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tests/app/command.h"

namespace ocelli::app {
namespace {

using nlohmann::json;

// A small buffer: the bandwidth it shows is some cache's, which no test looks at.
constexpr const char* kQuick = " --buffer 16 --repeat 1 ";

// stories15m: 6 layers of dim 288 with a hidden dim of 768, and 32,000 tokens, tied.
constexpr int64_t kDim = 288;
constexpr int64_t kLayers = 6;
constexpr int64_t kHidden = 768;
constexpr int64_t kClassifier = 32000 * kDim;
constexpr int64_t kLayerMatrices = 4 * kDim * kDim + 3 * kDim * kHidden;
constexpr int64_t kNorms = (2 * kLayers + 1) * kDim;

// Of the matrices that make keys and values.
constexpr int64_t kKvMatrices = 2 * kDim * kDim;

// A token behind `visible` − 1 others.
int64_t decode_ops(int64_t visible) {
  return 2 * (kLayers * kLayerMatrices + kClassifier) + 4 * visible * kDim * kLayers;
}
// A prompt: its last token, the others in all layers but the last, and keys and values of the last.
int64_t prefill_ops(int64_t rows) {
  const int64_t pairs = rows * (rows + 1) / 2;
  return decode_ops(rows) + 2 * ((rows - 1) * (kLayers - 1) * kLayerMatrices + rows * kKvMatrices) +
         4 * (pairs - rows) * kDim * (kLayers - 1);
}
// Keys and values of so many positions, of 2 bytes.
int64_t cache_bytes(int64_t positions) {
  return 2 * positions * kDim * kLayers * 2;
}

json bench(const std::string& arguments, const std::string& environment = "") {
  const Finished run =
      run_ocelli("bench -q --json" + std::string(kQuick) + arguments, "", environment);
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.err, "");
  return json::parse(run.out, nullptr, false);
}

std::vector<std::string> names(const json& report) {
  std::vector<std::string> found;
  for (const json& row : report["rows"]) found.push_back(row["name"]);
  return found;
}

void expect_machine(const json& machine, int threads) {
  EXPECT_FALSE(machine["cpu"].get<std::string>().empty());
  EXPECT_FALSE(machine["isa"].get<std::string>().empty());
  EXPECT_EQ(machine["threads"], threads);
  EXPECT_GT(machine["read_gb_s"], 0);
  EXPECT_GT(machine["f32_tflops"], 0);
  for (const char* peak : {"int8_tops", "bf16_tflops"}) {
    ASSERT_TRUE(machine.contains(peak));
    EXPECT_TRUE(machine[peak].is_null() || machine[peak] > 0) << peak;
  }
}

void expect_timed(const json& row) {
  EXPECT_GT(row["seconds"], 0) << row;
  EXPECT_GT(row["fraction"], 0) << row;
  const std::set<std::string> bounds = {"read", "int8", "bf16", "f32"};
  EXPECT_TRUE(bounds.contains(row["bound"])) << row;
  if (row["tokens"].is_null()) return;
  EXPECT_DOUBLE_EQ(row["tok_s"].get<double>(),
                   row["tokens"].get<double>() / row["seconds"].get<double>());
}

TEST(Bench, CountsOfAnFp32PresetAreThoseOfItsShape) {
  const json report = bench("--preset stories15m --weights f32 --threads 2");
  EXPECT_EQ(report["model"], "stories15m");
  expect_machine(report["machine"], 2);
  ASSERT_EQ(names(report), (std::vector<std::string>{"prefill", "decode"}));
  constexpr int64_t kWeights = 4 * (kLayers * kLayerMatrices + kClassifier + kNorms);

  const json& prefill = report["rows"][0];  // as much as the context takes
  expect_timed(prefill);
  EXPECT_EQ(prefill["weights"], "f32");
  EXPECT_EQ(prefill["tokens"], 256);
  EXPECT_EQ(prefill["context"], 0);
  EXPECT_EQ(prefill["ops"], prefill_ops(256));
  // The last layer's norm and the matrices of its keys and values are read once more.
  EXPECT_EQ(prefill["bytes"], kWeights + 4 * (kKvMatrices + kDim) + cache_bytes(256));

  const json& decode = report["rows"][1];  // behind half a context
  expect_timed(decode);
  EXPECT_EQ(decode["tokens"], 1);
  EXPECT_EQ(decode["context"], 128);
  EXPECT_EQ(decode["batch"], 1);
  EXPECT_EQ(decode["ops"], decode_ops(129));
  EXPECT_EQ(decode["bytes"], kWeights + cache_bytes(129));
}

TEST(Bench, QuantisedWeightsAreCountedWithTheirScalesAndReadOnceForABatch) {
  const json report = bench("--preset stories15m --weights q8_0 --batch 1,4 --context 10");
  ASSERT_EQ(names(report), (std::vector<std::string>{"prefill", "decode", "decode"}));
  // Groups of 64, but of 32 where there are 288 inputs.
  constexpr int64_t kDown = kLayers * kDim * kHidden;
  constexpr int64_t kOthers = kLayers * kLayerMatrices + kClassifier - kDown;
  constexpr int64_t kWeights = kOthers + kOthers / 32 * 4 + kDown + kDown / 64 * 4 + kNorms * 4;
  for (const int64_t batch : {1, 4}) {
    const json& decode = report["rows"][batch == 1 ? 1 : 2];
    expect_timed(decode);
    EXPECT_EQ(decode["weights"], "q8_0");
    EXPECT_EQ(decode["context"], 10);
    EXPECT_EQ(decode["batch"], batch);
    EXPECT_EQ(decode["tokens"], batch);
    EXPECT_EQ(decode["ops"], batch * decode_ops(11));
    EXPECT_EQ(decode["bytes"], kWeights + batch * cache_bytes(11));
  }
}

TEST(Bench, Int8HasOneScaleARowAndKeysOneAHead) {
  const json report = bench("--preset stories15m --weights int8 --context 10 --kv-cache int8");
  constexpr int64_t kOutputs = kLayers * (5 * kDim + 2 * kHidden) + 32000;
  const json& decode = report["rows"][1];
  EXPECT_EQ(decode["weights"], "int8");
  EXPECT_EQ(decode["kv_cache"], "int8");
  constexpr int64_t kKeys = 11 * kLayers * (kDim + 6 * 4);  // six heads
  EXPECT_EQ(decode["bytes"],
            kLayers * kLayerMatrices + kClassifier + kOutputs * 4 + kNorms * 4 + 2 * kKeys);
}

TEST(Bench, Int4HasFactorsAndAnInt8Head) {
  const json report = bench("--preset stories15m --weights int4 --group 64 --context 10");
  const json& decode = report["rows"][1];
  // Half a byte a weight, lines of four groups' factors of 16 outputs: 288 and 768 inputs have 5
  // and 12 groups. All outputs are whole panels.
  constexpr int64_t kNarrow = 2 * 64 / 16;
  constexpr int64_t kWide = 3 * 64 / 16;
  constexpr int64_t kFactors = (4 * kDim + 2 * kHidden) * kNarrow + kDim * kWide;
  constexpr int64_t kOutputs = kLayers * (5 * kDim + 2 * kHidden) + 32000;
  EXPECT_EQ(decode["bytes"], kLayers * (kLayerMatrices / 2 + kFactors) + kClassifier +
                                 kOutputs * 4 + kNorms * 4 + cache_bytes(11));
}

TEST(Bench, AModelThatSeesHasEveryRow) {
  const json report =
      bench(fmt::format("-m '{}' --context 9", source_path("assets/demo").string()));
  ASSERT_EQ(names(report), (std::vector<std::string>{"load", "encode", "connector", "prefill",
                                                     "first_token", "decode"}));
  const json& rows = report["rows"];
  EXPECT_GT(rows[0]["seconds"], 0);
  EXPECT_GT(rows[0]["bytes"], 0);
  EXPECT_TRUE(rows[0]["fraction"].is_null());
  for (size_t i = 1; i < rows.size(); ++i) expect_timed(rows[i]);
  // The first token is the three before it, but that its picture needs no embedding.
  for (const char* count : {"ops", "bytes"}) {
    EXPECT_EQ(rows[4][count].get<int64_t>(), rows[1][count].get<int64_t>() +
                                                 rows[2][count].get<int64_t>() +
                                                 rows[3][count].get<int64_t>())
        << count;
  }
}

TEST(Bench, WholeCaptionsAreMadeAsManyAtATimeAsTheBatchSays) {
  const json report = bench(fmt::format("-m '{}' --context 9 --caption --batch 1,3",
                                        source_path("assets/demo").string()));
  std::vector<json> captions;
  for (const json& row : report["rows"]) {
    if (row["name"] == "caption") captions.push_back(row);
    EXPECT_EQ(row["images_per_minute"].is_null(), row["name"] != "caption") << row;
  }
  ASSERT_EQ(captions.size(), 2U);
  for (const int batch : {1, 3}) {
    const json& row = captions[batch == 1 ? 0 : 1];
    expect_timed(row);
    EXPECT_EQ(row["batch"], batch);
    const int count = 5 * batch;
    EXPECT_EQ(row["tokens"], count * 30);
    EXPECT_DOUBLE_EQ(row["images_per_minute"].get<double>(),
                     60 * count / row["seconds"].get<double>());
  }
  // The same is to be done for each picture, and weights are read for all of them together.
  EXPECT_EQ(captions[1]["ops"].get<int64_t>(), 3 * captions[0]["ops"].get<int64_t>());
  EXPECT_LT(captions[1]["bytes"].get<int64_t>(), 2 * captions[0]["bytes"].get<int64_t>());
  expect_failure(run_ocelli("bench -q --preset stories15m --caption"), "reads text only");
}

TEST(Bench, TheInstructionSetAskedForIsTheOneMeasured) {
  const json report = bench("--preset stories15m --weights f32", "OCELLI_ISA=scalar");
  EXPECT_EQ(report["machine"]["isa"], "scalar");
  EXPECT_TRUE(report["machine"]["int8_tops"].is_null());
  EXPECT_EQ(run_ocelli("bench -q --preset stories15m", "", "OCELLI_ISA=nope").code, 1);
}

TEST(Bench, TheTableExplainsItself) {
  const Finished run = run_ocelli(fmt::format("bench --preset stories15m --weights f16{}", kQuick));
  ASSERT_EQ(run.code, 0) << run.err;
  for (const char* text : {"stories15m, f16 weights", "GB/s", "tokens/s", "\nprefill ", "\ndecode ",
                           "fraction: the least time"}) {
    EXPECT_NE(run.out.find(text), std::string::npos) << text << "\n" << run.out;
  }
  // Progress is for stderr.
  EXPECT_NE(run.err.find("random f16 weights"), std::string::npos) << run.err;
  EXPECT_NE(run.err.find("timing decode"), std::string::npos) << run.err;
}

TEST(Bench, PicturesAreTimedStepByStep) {
  const std::string folder = source_path("assets/scenes").string();
  const Finished run = run_ocelli(fmt::format("bench -q --json --images '{}'", folder));
  ASSERT_EQ(run.code, 0) << run.err;
  const json report = json::parse(run.out);
  EXPECT_GT(report["images"], 1);
  EXPECT_EQ(names(report), (std::vector<std::string>{"decode", "resize", "encode", "connector",
                                                     "prefill", "generate"}));
  for (const json& row : report["rows"]) EXPECT_GT(row["seconds"], 0) << row;

  const TemporaryFolder empty;
  expect_failure(run_ocelli("bench -q --images " + empty.path().string()), "holds no pictures");
  expect_failure(run_ocelli("bench -q --images /nowhere/at/all"), "cannot be listed");
}

TEST(Bench, RefusesWhatMakesNoSense) {
  for (const char* arguments :
       {"--preset phi-3", "--preset stories15m --weights int3", "--weights f32",
        "--preset stories15m -m somewhere", "--preset stories15m --images somewhere",
        "--preset stories15m --batch 0", "--preset stories15m --batch 1,x",
        "--preset stories15m --repeat 0", "--preset stories15m --context 0"}) {
    const Finished run = run_ocelli(fmt::format("bench {}", arguments));
    EXPECT_EQ(run.code, 2) << arguments << "\n" << run.err;
    EXPECT_EQ(run.out, "") << arguments;
  }
  expect_failure(run_ocelli("bench -q --preset stories15m --context 256"),
                 "--context 256: the model's context is 256 tokens");
  expect_failure(run_ocelli("bench -q -m /nowhere/at/all"), "there is no such model");
}

TEST(Bench, SaysBeforehandThatMemoryIsShort) {
  // 258 GB of keys and values.
  std::istringstream meminfo(read_file("/proc/meminfo"));
  for (std::string line; std::getline(meminfo, line);) {
    if (line.starts_with("MemAvailable:") && std::stoll(line.substr(13)) > 400'000'000) {
      GTEST_SKIP() << "this machine has room for it";
    }
  }
  const Finished run = run_ocelli("bench -q --preset tinyllava-3.1b --batch 256 --context 3071");
  expect_failure(run, "too little memory: this takes about 2");
  EXPECT_NE(run.err.find("GB are available"), std::string::npos) << run.err;
}

}  // namespace
}  // namespace ocelli::app
