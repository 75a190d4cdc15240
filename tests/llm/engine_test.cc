// The engine over a tiny random Phi: prompts in pieces, conversations, many sequences, and its
// limits.
#include "llm/engine.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <limits>

#include "host/error.h"
#include "host/json.h"
#include "kernels/backend.h"
#include "llm/phi2.h"

namespace ocelli::llm {
namespace {

using kernels::Tensor;
using Tokens = std::vector<int32_t>;

class EngineTest : public testing::Test {
 protected:
  EngineTest()
      : directory_(std::filesystem::path(OCELLI_SOURCE_DIR) / "tests/golden/models/text_only"),
        checkpoint_(kernels::Checkpoint::open(directory_ / "model.safetensors")),
        config_(Phi2Config::parse({host::read_json(directory_ / "config.json"), "config.json"})),
        ops_(kernels::make_backend({"cpu", 2, ""})) {
    kernels::TensorReader reader(checkpoint_);
    weights_ = Phi2Weights::read(reader, "", config_);
    reader.finish();
    limits_.sequences = 4;
    limits_.capacity = 64;
    limits_.max_rows = 16;
    remake();
  }

  void remake() {
    phi_ = std::make_unique<Phi2>(*ops_, config_, weights_, limits_);
    engine_ = std::make_unique<Engine>(*ops_, *phi_);
  }
  static GenerationOptions greedy(int max_tokens) {
    GenerationOptions options;
    options.max_tokens = max_tokens;
    return options;
  }
  // Runs until nothing is left to do; the tokens of `sequence`.
  Tokens run(int sequence) {
    Tokens tokens;
    while (engine_->busy()) {
      for (const Output& output : engine_->step()) {
        if (output.sequence == sequence) tokens.push_back(output.token);
      }
    }
    return tokens;
  }
  Tokens answer(const Tokens& prompt, int max_tokens) {
    const int sequence = *engine_->open();
    engine_->submit(sequence, {{prompt, {}}}, greedy(max_tokens));
    const Tokens tokens = run(sequence);
    engine_->close(sequence);
    return tokens;
  }

  std::filesystem::path directory_;
  kernels::Checkpoint checkpoint_;
  Phi2Config config_;
  Phi2Weights weights_;
  DecoderLimits limits_;
  std::unique_ptr<kernels::Ops> ops_;
  std::unique_ptr<Phi2> phi_;
  std::unique_ptr<Engine> engine_;
};

Tokens joined(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

const Tokens kPrompt = {3, 14, 15, 92, 65, 35, 89, 79, 32, 38, 46, 26, 43, 38, 32, 79, 50, 28};
const Tokens kNext = {27, 18, 28, 18};

TEST_F(EngineTest, AConversationIsOneLongPrompt) {
  const int sequence = *engine_->open();
  engine_->submit(sequence, {{kPrompt, {}}}, greedy(5));
  const Tokens first = run(sequence);
  ASSERT_EQ(first.size(), 5U);
  // The last token is generated but not in the context yet.
  EXPECT_EQ(engine_->past(sequence), static_cast<int>(kPrompt.size()) + 4);
  engine_->submit(sequence, {{kNext, {}}}, greedy(7));
  const Tokens second = run(sequence);
  EXPECT_EQ(second, answer(joined(joined(kPrompt, first), kNext), 7));
}

TEST_F(EngineTest, AnAnswerStoppedHalfwayStaysInTheContext) {
  const int sequence = *engine_->open();
  engine_->submit(sequence, {{kPrompt, {}}}, greedy(20));
  Tokens first;
  while (first.size() < 3) {
    for (const Output& output : engine_->step()) first.push_back(output.token);
  }
  engine_->stop(sequence);
  EXPECT_FALSE(engine_->busy());
  engine_->submit(sequence, {{kNext, {}}}, greedy(7));
  const Tokens second = run(sequence);
  EXPECT_EQ(second, answer(joined(joined(kPrompt, first), kNext), 7));
}

TEST_F(EngineTest, APromptStoppedAtAnyRowIsNotLost) {
  limits_.max_rows = 5;
  remake();
  const Tokens expected = answer(joined(kPrompt, kNext), 7);
  const Tensor unused;
  for (int steps = 0; steps <= 3; ++steps) {
    remake();  // or what the place has run of this prompt would not be run again
    const int sequence = *engine_->open();
    const Tokens head(kPrompt.begin(), kPrompt.begin() + 7);
    const Tokens tail(kPrompt.begin() + 7, kPrompt.end());
    engine_->submit(sequence, {{head, unused}, {tail, unused}}, greedy(20));
    for (int i = 0; i < steps; ++i) EXPECT_TRUE(engine_->step().empty());
    engine_->stop(sequence);
    EXPECT_EQ(engine_->room(sequence), limits_.capacity - static_cast<int>(kPrompt.size()));
    engine_->submit(sequence, {{kNext, {}}}, greedy(7));
    EXPECT_EQ(run(sequence), expected) << "stopped after " << steps << " steps";
    engine_->close(sequence);
  }
}

TEST_F(EngineTest, ASequenceDoesNotDependOnTheOthers) {
  std::vector<Tokens> prompts;
  std::vector<Tokens> alone;
  for (int i = 0; i < 9; ++i) {
    prompts.emplace_back(kPrompt.begin(), kPrompt.begin() + 3 + i);
    alone.push_back(answer(prompts.back(), 4 + i));
  }
  // Places are taken again as soon as they are free, so prompts and answers share steps.
  std::vector<Tokens> together(prompts.size());
  std::vector<int> owner(limits_.sequences, -1);
  size_t next = 0;
  while (next < prompts.size() || engine_->busy()) {
    while (next < prompts.size()) {
      const std::optional<int> sequence = engine_->open();
      if (!sequence) break;
      owner[*sequence] = static_cast<int>(next);
      engine_->submit(*sequence, {{prompts[next], {}}}, greedy(4 + static_cast<int>(next)));
      ++next;
    }
    for (const Output& output : engine_->step()) {
      together[owner[output.sequence]].push_back(output.token);
      if (output.finish != FinishReason::kNone) engine_->close(output.sequence);
    }
  }
  EXPECT_EQ(together, alone);
}

TEST_F(EngineTest, APromptSharesItsStepsWithTheTokensOfOthers) {
  const Tokens alone = answer(kNext, 30);
  const int talking = *engine_->open();
  const int listening = *engine_->open();
  engine_->submit(talking, {{kNext, {}}}, greedy(30));
  Tokens tokens = {engine_->step()[0].token};
  Tokens prompt;
  for (int i = 0; i < 3; ++i) prompt = joined(prompt, kPrompt);  // 54 rows beside a token: 4 steps
  engine_->submit(listening, {{prompt, {}}}, greedy(1));
  for (int step = 1; step <= 4; ++step) {
    bool answered = false;
    bool talked = false;
    for (const Output& output : engine_->step()) {
      answered = answered || output.sequence == listening;
      if (output.sequence != talking) continue;
      talked = true;
      tokens.push_back(output.token);
    }
    EXPECT_TRUE(talked) << step;
    EXPECT_EQ(answered, step == 4) << step;
  }
  EXPECT_EQ(joined(tokens, run(talking)), alone);
}

TEST_F(EngineTest, EveryPromptHasItsTurnThoughTokensWouldFillAStep) {
  limits_.max_rows = 2;
  remake();
  for (int i = 0; i < 3; ++i) {
    engine_->submit(*engine_->open(), {{{1 + i}, {}}}, greedy(60));
  }
  while (engine_->past(0) < 2 || engine_->past(1) < 2 || engine_->past(2) < 2) engine_->step();
  const int late = *engine_->open();
  engine_->submit(late, {{kNext, {}}}, greedy(1));
  bool answered = false;
  for (size_t step = 0; step < kNext.size(); ++step) {
    for (const Output& output : engine_->step()) answered = answered || output.sequence == late;
  }
  EXPECT_TRUE(answered);
}

TEST_F(EngineTest, StopTokensEndAnAnswerAndStayOutOfTheContext) {
  const Tokens free = answer(kPrompt, 6);
  const int sequence = *engine_->open();
  GenerationOptions options = greedy(6);
  options.stop_tokens = {free[2]};
  engine_->submit(sequence, {{kPrompt, {}}}, options);
  FinishReason reason = FinishReason::kNone;
  Tokens tokens;
  while (engine_->busy()) {
    for (const Output& output : engine_->step()) {
      tokens.push_back(output.token);
      reason = output.finish;
    }
  }
  const size_t end = std::ranges::find(free, free[2]) - free.begin();
  EXPECT_EQ(tokens, Tokens(free.begin(), free.begin() + static_cast<int64_t>(end) + 1));
  EXPECT_EQ(reason, FinishReason::kStopToken);
  EXPECT_EQ(engine_->past(sequence), static_cast<int>(kPrompt.size() + end));
  EXPECT_EQ(engine_->room(sequence), limits_.capacity - engine_->past(sequence));
}

TEST_F(EngineTest, TheContextIsFilledToItsLastPositionAndNoFurther) {
  const int most = limits_.capacity - static_cast<int>(kPrompt.size()) + 1;
  EXPECT_EQ(answer(kPrompt, most).size(), static_cast<size_t>(most));
  const int sequence = *engine_->open();
  EXPECT_THROW(engine_->submit(sequence, {{kPrompt, {}}}, greedy(most + 1)), host::Error);
  // A refusal changes nothing.
  engine_->submit(sequence, {{kPrompt, {}}}, greedy(2));
  const Tokens tokens = run(sequence);
  EXPECT_EQ(tokens, answer(kPrompt, 2));
}

TEST_F(EngineTest, PlacesRunOut) {
  for (int i = 0; i < limits_.sequences; ++i) EXPECT_TRUE(engine_->open().has_value());
  EXPECT_FALSE(engine_->open().has_value());
  engine_->close(2);
  EXPECT_EQ(engine_->open(), 2);
}

TEST_F(EngineTest, ProbabilitiesAreThoseOfTheModel) {
  const int sequence = *engine_->open();
  GenerationOptions options = greedy(8);
  options.probabilities = true;
  engine_->submit(sequence, {{kPrompt, {}}}, options);
  while (engine_->busy()) {
    for (const Output& output : engine_->step()) {
      EXPECT_GT(output.probability, 1.0F / static_cast<float>(config_.vocab_size));
      EXPECT_LE(output.probability, 1.0F);
    }
  }
}

TEST_F(EngineTest, NaNEndsItsOwnSequenceAndNoOther) {
  const Tokens expected = answer(kPrompt, 5);
  const int sequence = *engine_->open();
  const Tensor rows =
      ops_->tensor(3, config_.hidden_size, kernels::DType::kF32, kernels::Placement::kActivation);
  std::vector<float> values(3 * config_.hidden_size, 0.5F);
  values[7] = std::numeric_limits<float>::quiet_NaN();
  ops_->write(values, rows);
  engine_->submit(sequence, {{{}, rows}}, greedy(3));
  const int other = *engine_->open();
  engine_->submit(other, {{kPrompt, {}}}, greedy(5));
  Tokens tokens;
  std::vector<FinishReason> reasons;
  while (engine_->busy()) {
    for (const Output& output : engine_->step()) {
      if (output.sequence == other) tokens.push_back(output.token);
      if (output.sequence == sequence) reasons.push_back(output.finish);
    }
  }
  EXPECT_EQ(reasons, std::vector<FinishReason>{FinishReason::kNotFinite});
  EXPECT_EQ(tokens, expected);
}

TEST(KvCache, MoreRowsThanAMatrixMayHaveAreAnError) {
  const std::unique_ptr<kernels::Ops> ops = kernels::make_backend({"cpu", 1, ""});
  const KvCacheShape shape = {
      .layers = 1, .kv_heads = 32, .head_dim = 80, .sequences = 1 << 15, .capacity = 1 << 12};
  try {
    const KvCache cache(*ops, shape);
    FAIL() << "made";
  } catch (const host::Error& error) {
    EXPECT_STREQ(error.what(),
                 "a cache of 32768 sequences of 4096 positions is too large: lower --context or "
                 "--batch");
  }
}

}  // namespace
}  // namespace ocelli::llm
