// Stories, token ids and perplexities are those of llama2.c and of Hugging Face transformers
// (tests/reference/make_story_goldens.py).
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "app/pipeline.h"
#include "kernels/cpu/kernel_table.h"
#include "tests/app/command.h"

namespace ocelli::app {
namespace {

using nlohmann::json;

constexpr int kContext = 256;  // of the goldens' models

fs::path golden(const std::string& name) {
  return source_path("tests/golden/stories") / name;
}
json read_golden(const std::string& name) {
  return json::parse(read_file(golden(name)));
}

// The command line that asks for what the golden's program was asked for.
std::string arguments_of(const json& run, const std::string& model) {
  std::string arguments = "story -q -m " + golden(model).string() + " -n " + run["steps"].dump() +
                          " -t " + run["temperature"].dump();
  if (!run["seed"].is_null()) {
    arguments += " --sampler llama2c -s " + run["seed"].dump() + " -p " + run["top_p"].dump();
  }
  return arguments + " -";
}

// Whether ours takes the same request: llama2.c bends what makes no sense (a length past the
// context, a negative temperature, a top-p of 0) into something else, and stops within a long
// prompt; we refuse.
bool sensible(const json& run) {
  const int steps = run["steps"];
  const double temperature = run["temperature"];
  const bool chance = temperature > 0;
  const bool told = chance || run.contains("least_gap");
  const bool drawable = !chance || (run["top_p"] > 0.0 && run["top_p"] <= 1.0);
  return steps > 0 && steps <= kContext && temperature >= 0 && told && drawable;
}

std::string prompt_of(const json& run) {
  return run["prompt"].is_null() ? "" : run["prompt"].get<std::string>();
}

// The likeliest 256 tokens after a prompt, BOS and the prompt left out.
std::vector<int32_t> greedy_tokens(const std::string& model, const std::string& isa,
                                   const std::string& prompt) {
  PipelineOptions options;
  options.backend.isa = isa;
  options.kv_dtype = kernels::DType::kF32;
  Pipeline pipeline(golden(model), options);
  std::vector<int32_t> ids = {pipeline.tokenizer().bos()};
  const auto encoded = pipeline.tokenizer().encode(prompt);
  ids.insert(ids.end(), encoded.begin(), encoded.end());
  llm::GenerationOptions generation;
  generation.max_tokens = kContext + 1 - static_cast<int>(ids.size());
  generation.stop_tokens = {pipeline.tokenizer().eos()};
  llm::Engine& engine = pipeline.engine();
  engine.submit(*engine.open(), {{ids, {}}}, generation);
  std::vector<int32_t> tokens;
  while (engine.busy()) {
    for (const llm::Output& output : engine.step()) tokens.push_back(output.token);
  }
  return tokens;
}

TEST(StoryGolden, ExactlyWhatLlama2cTells) {
  int compared = 0;
  for (const json& run : read_golden("runs.json")) {
    if (!sensible(run)) continue;
    const Finished told = run_ocelli(arguments_of(run, run["model"]) + " --exact", prompt_of(run));
    EXPECT_EQ(told.out, run["stdout"].get<std::string>()) << run.dump();
    ++compared;
  }
  EXPECT_GT(compared, 36);
}

// Version 1 has no reader there; its weights here are those of a version 0 file.
TEST(StoryGolden, VersionOneTellsWhatVersionZeroDoes) {
  int compared = 0;
  for (const json& run : read_golden("runs.json")) {
    if (run["model"] != "grouped.v0.bin" || !sensible(run)) continue;
    const Finished told =
        run_ocelli(arguments_of(run, "grouped.v1.bin") + " --exact", prompt_of(run));
    EXPECT_EQ(told.out, run["stdout"].get<std::string>()) << run.dump();
    ++compared;
  }
  EXPECT_GT(compared, 3);
}

// The same sums in another order flip a choice only where two tokens are as good as equal, which
// they are nowhere in these. (Where activations are quantised a rounding flips now and then, and
// moves a sum by far more.)
TEST(StoryGolden, EveryInstructionSetChoosesTheSameTokens) {
  for (const char* model : {"tied.v0.bin", "grouped.v0.bin"}) {
    for (const char* prompt : {"", "Is the red star above the boat?"}) {
      const std::vector<int32_t> expected = greedy_tokens(model, "llama2c", prompt);
      EXPECT_GT(expected.size(), 200U);
      for (const kernels::cpu::KernelTable* table : kernels::cpu::supported_tables()) {
        EXPECT_EQ(greedy_tokens(model, table->isa, prompt), expected) << model << table->isa;
      }
    }
  }
}

TEST(StoryGolden, TokenIds) {
  const auto compare = [](const fs::path& vocabulary, const std::string& ids) {
    const auto tokenizer = llm::load_tokenizer(vocabulary);
    for (const json& text : read_golden(ids)) {
      if (text.contains("hex")) continue;  // not UTF-8, which ours refuses
      std::vector<int32_t> found = {tokenizer->bos()};
      const auto encoded = tokenizer->encode(text["text"].get<std::string>());
      found.insert(found.end(), encoded.begin(), encoded.end());
      EXPECT_EQ(found, text["ids"].get<std::vector<int32_t>>()) << text["text"];
    }
  };
  compare(golden("tokenizer.bin"), "ids.json");
  const fs::path llama2 = source_path("../shared/data/llama2-tokenizer.bin");
  if (fs::exists(llama2)) compare(llama2, "llama2_ids.json");
}

TEST(StoryGolden, PerplexityAgreesWithTransformers) {
  const json goldens = read_golden("perplexity.json");
  for (const char* model : {"hf_grouped", "hf_tied"}) {
    for (const json& expected : goldens[model]) {
      const Finished run = run_ocelli(
          "perplexity -q --json --kv-cache f32 -m " + golden(model).string() + " --context " +
          expected["context"].dump() + " " + golden("documents.txt").string());
      ASSERT_EQ(run.code, 0) << run.err;
      const json found = json::parse(run.out);
      EXPECT_EQ(found["tokens"], expected["tokens"]);
      EXPECT_EQ(found["bytes"], expected["bytes"]);
      EXPECT_NEAR(found["nll_per_byte"], expected["nll_per_byte"], 1e-4);
      const double log_perplexity = std::log(found["perplexity"].get<double>());
      EXPECT_NEAR(log_perplexity, expected["nll_per_token"], 1e-4);
    }
  }
}

}  // namespace
}  // namespace ocelli::app
