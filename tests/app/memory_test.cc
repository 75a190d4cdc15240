// What a model is foretold to take, against what it takes.
#include "app/memory.h"

#include <sys/resource.h>

#include "host/error.h"
#include "tests/app/caption_testing.h"
#include "tests/host/expect_error.h"

namespace ocelli::app {
namespace {

PipelineOptions options_for(int sequences, int threads = 2) {
  PipelineOptions options;
  options.sequences = sequences;
  options.backend.threads = threads;
  return options;
}

class Memory : public testing::Test {
 protected:
  MemoryForecast forecast(const PipelineOptions& options) const {
    return forecast_memory(model_, options);
  }

  OpenedModel model_ = open_model(source_path("assets/demo"));
};

TEST_F(Memory, OfWeightsIsWhereTheyAreKept) {
  int64_t bytes = 0;
  for (const auto& [name, tensor] : model_.checkpoint.tensors()) bytes += tensor.bytes();
  PipelineOptions options = options_for(1);
  // fp16 matrices are read where they are mapped; vectors become fp32.
  EXPECT_GT(forecast(options).mapped, bytes * 9 / 10);
  EXPECT_LE(forecast(options).mapped, bytes);
  EXPECT_LT(forecast(options).weights, bytes / 10);
  options.pack.emplace();
  const int64_t int8 = forecast(options).weights;
  EXPECT_GT(int8, bytes / 3);
  options.pack->factor_group = 64;
  EXPECT_LT(forecast(options).weights, int8);
  options.pack->factor_group = 0;
  options.pack->bf16 = true;
  EXPECT_GT(forecast(options).weights, int8 * 3 / 2);
  options.pack.reset();
  options.backend.name = "reference";  // fp32
  EXPECT_EQ(forecast(options).mapped, 0);
  EXPECT_GT(forecast(options).weights, bytes * 3 / 2);
}

TEST_F(Memory, OfHiddenRowsIsHalfWhereTheyWaitInBf16) {
  const auto& phi = std::get<llm::Phi2Config>(model_.config.text);
  const vision::SiglipConfig& siglip = model_.config.vision->siglip;
  PipelineOptions options = options_for(1);
  const int64_t rows = decoder_limits(model_.config, options).max_rows;
  const int64_t values =
      rows * phi.intermediate_size + int64_t{siglip.patches()} * siglip.intermediate_size;
  const int64_t floats = forecast(options).activations;
  options.pack.emplace();
  EXPECT_EQ(forecast(options).activations, floats - 2 * values);
  options.pack->bf16 = true;  // as bf16 the rounded rows take a byte more than as int8
  EXPECT_EQ(forecast(options).activations, floats - values);
  options.pack.reset();
  options.backend.name = "reference";
  EXPECT_EQ(forecast(options).activations, floats);
}

// Of backends that copy weights; the demo's vectors and matrices are fp16.
TEST_F(Memory, OfTheLastLayersKeysAndValuesIsCountedTwice) {
  const auto& phi = std::get<llm::Phi2Config>(model_.config.text);
  int64_t values = 2 * int64_t{phi.kv_width()} * (phi.hidden_size + 1);
  for (const auto& [name, tensor] : model_.checkpoint.tensors()) values += tensor.elements();
  PipelineOptions options = options_for(1);
  options.backend.name = "reference";
  EXPECT_EQ(forecast(options).weights, 4 * values);
  options.backend.name = "u280-emulated";
  EXPECT_EQ(forecast(options).weights, 2 * values);
  options.backend.name = "cpu";
  const int64_t alone = forecast(options).weights;
  options.check = true;
  EXPECT_EQ(forecast(options).weights, alone + 4 * values);
}

TEST_F(Memory, OfCachesGrowsWithSequencesContextAndPrecision) {
  PipelineOptions options = options_for(1);
  const int64_t one = forecast(options).cache;
  options.sequences = 16;
  EXPECT_EQ(forecast(options).cache, 16 * one);
  options.context = model_.config.context / 2;
  EXPECT_EQ(forecast(options).cache, 8 * one);
  options.kv_dtype = kernels::DType::kF32;
  EXPECT_EQ(forecast(options).cache, 16 * one);
}

TEST_F(Memory, AsManySequencesAsFitAreTaken) {
  for (const int most : {1, 2, 16, 100}) {
    for (int64_t bytes = 0; bytes < 200'000'000; bytes += 3'700'000) {
      const int fits = sequences_that_fit(model_, options_for(1), bytes, most);
      ASSERT_GE(fits, 1);
      ASSERT_LE(fits, most);
      if (fits > 1) {
        EXPECT_LE(forecast(options_for(fits)).resident(), bytes);
      }
      if (fits < most) {
        EXPECT_GT(forecast(options_for(fits + 1)).resident(), bytes);
      }
    }
  }
}

TEST_F(Memory, ThatIsMissingIsSaidWithTheNumbers) {
  const MemoryForecast needed = forecast(options_for(100));
  AvailableMemory available;
  available.bytes = needed.resident();
  EXPECT_NO_THROW(require_memory(needed, available));
  available = limited_to(available, needed.resident() - 1);
  const std::string error = error_of([&] { require_memory(needed, available); });
  for (const char* part : {"too little memory: this takes about", "keys and values",
                           "--max-memory allows", "take fewer at once"}) {
    EXPECT_TRUE(holds(error, part));
  }
}

TEST_F(Memory, ThatWillBeSwappedOrReadAgainIsNoted) {
  const MemoryForecast needed = forecast(options_for(4));
  AvailableMemory available;
  EXPECT_EQ(memory_note(needed, available), "");
  available.ram = needed.resident() + needed.mapped / 2;
  EXPECT_TRUE(holds(memory_note(needed, available), "read again and again"));
  available.ram = needed.resident() - 1;
  EXPECT_TRUE(holds(memory_note(needed, available), "will be swapped"));
}

// A limit on all memory of its own that a process may have, at what was foretold: it must suffice.
TEST_F(Memory, ThatWasForetoldSuffices) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer takes memory of its own";
#endif
  const TemporaryFolder folder;
  draw_many(folder / "p", 17);
  for (const std::string how : {"--batch 16 --threads 2", "--batch 4 --threads 1 --kv-cache f32"}) {
    const std::string command =
        fmt::format("caption '{}' -o '{}' --if-exists overwrite ", (folder / "p").string(),
                    (folder / "c.jsonl").string()) +
        how;
    const Finished free = run_ocelli(command);
    ASSERT_EQ(free.code, 0) << free.err;
    const size_t at = free.err.find("about ");
    ASSERT_NE(at, std::string::npos) << free.err;
    const double gigabytes = std::stod(free.err.substr(at + 6)) + 0.005;  // it is rounded
    fs::remove(folder / "c.jsonl.journal");
    rlimit before = {};
    getrlimit(RLIMIT_DATA, &before);
    rlimit limit = before;
    limit.rlim_cur = static_cast<rlim_t>(gigabytes * 1e9);
    setrlimit(RLIMIT_DATA, &limit);
    const Finished limited = run_ocelli(command);
    setrlimit(RLIMIT_DATA, &before);
    EXPECT_EQ(limited.code, 0) << how << "\n" << limited.err;
  }
}

}  // namespace
}  // namespace ocelli::app
