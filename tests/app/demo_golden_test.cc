// The demo model against the reference implementation: 64 greedy tokens on 20 questions (made by
// tests/reference/make_demo_goldens.py), on every instruction set and on the emulated device.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "app/conversation.h"
#include "app/pipeline.h"
#include "host/json.h"
#include "kernels/cpu/kernel_table.h"
#include "tests/app/command.h"
#include "vision/image.h"

namespace ocelli::app {
namespace {

nlohmann::json demo_golden() {
  return host::read_json(source_path("tests/golden/demo.json"));
}

// Runs the golden's prompt without stopping at the end of the answer.
std::vector<int32_t> generate(Pipeline& pipeline, const nlohmann::json& golden, int count) {
  const vision::Image image =
      vision::read_image(source_path(golden["image"].get<std::string>()).string());
  Timings timings;
  const kernels::Tensor rows = pipeline.encode(pipeline.preprocess(image), timings);
  std::vector<llm::ContextPiece> pieces;
  for (const llm::PromptPiece& piece :
       pipeline.prompts().first_turn(golden["question"].get<std::string>(), 1)) {
    pieces.push_back(piece.image < 0 ? llm::ContextPiece{piece.ids, {}}
                                     : llm::ContextPiece{{}, rows});
  }
  llm::GenerationOptions options;
  options.max_tokens = count;
  const int sequence = *pipeline.engine().open();
  pipeline.engine().submit(sequence, std::move(pieces), options);
  std::vector<int32_t> tokens;
  while (pipeline.engine().busy()) {
    for (const llm::Output& output : pipeline.engine().step()) tokens.push_back(output.token);
  }
  pipeline.engine().close(sequence);
  return tokens;
}

void expect_golden_tokens(const kernels::BackendOptions& backend, size_t questions) {
  PipelineOptions options;
  options.backend = backend;
  options.kv_dtype = kernels::DType::kF32;
  Pipeline pipeline(source_path("assets/demo"), options);
  const nlohmann::json golden = demo_golden();
  ASSERT_EQ(golden.size(), 20U);
  for (size_t i = 0; i < questions; ++i) {
    const auto expected = golden[i]["tokens"].get<std::vector<int32_t>>();
    EXPECT_EQ(generate(pipeline, golden[i], static_cast<int>(expected.size())), expected)
        << golden[i]["question"] << " about " << golden[i]["image"];
  }
}

TEST(DemoGolden, PromptIdsAreTheReferences) {
  Pipeline pipeline(source_path("assets/demo"), {});
  for (const nlohmann::json& golden : demo_golden()) {
    const llm::Prompt prompt =
        pipeline.prompts().first_turn(golden["question"].get<std::string>(), 1);
    EXPECT_EQ(llm::flatten(prompt), golden["prompt_ids"].get<std::vector<int32_t>>());
  }
}

// The largest difference between a tensor and a golden of its shape, over the golden's largest
// value.
float relative_error(kernels::Ops& ops, const kernels::Tensor& found,
                     const kernels::HostTensor& golden) {
  std::vector<float> expected(golden.elements());
  kernels::convert_to_f32(golden.dtype, golden.data, golden.elements(), expected.data());
  std::vector<float> values(static_cast<size_t>(found.rows) * found.cols);
  EXPECT_EQ(values.size(), expected.size()) << golden.name;
  ops.read(found, values);
  float largest = 0;
  float difference = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    largest = std::max(largest, std::fabs(expected[i]));
    difference = std::max(difference, std::fabs(expected[i] - values[i]));
  }
  return difference / largest;
}

TEST(DemoGolden, TheImageRowsAreTheReferences) {
  const auto golden = kernels::Checkpoint::open(source_path("tests/golden/demo.safetensors"));
  Pipeline pipeline(source_path("assets/demo"), {});
  const vision::Image image =
      vision::read_image(source_path(demo_golden()[0]["image"].get<std::string>()).string());
  Timings timings;
  const kernels::Tensor rows = pipeline.encode(pipeline.preprocess(image), timings);
  EXPECT_LT(relative_error(pipeline.ops(), rows, golden.tensors().at("connector.0")), 2e-5F);
}

TEST(DemoGolden, TheCpuBackendSays64TokensOn20QuestionsAsTheReferenceDoes) {
  for (const kernels::cpu::KernelTable* table : kernels::cpu::supported_tables()) {
    SCOPED_TRACE(table->isa);
    // One addition after another is slow, slower still under sanitizers: two questions of it do.
    const bool plain_c = table->isa == std::string("llama2c");
    expect_golden_tokens({"cpu", 0, table->isa}, plain_c ? 2 : 20);
  }
}

TEST(DemoGolden, TheReferenceBackendAndTheEmulatedDeviceSayTheSame) {
  for (const char* name : {"reference", "u280-emulated"}) {
    SCOPED_TRACE(name);
    expect_golden_tokens({name, 0, ""}, 2);
  }
}

}  // namespace
}  // namespace ocelli::app
