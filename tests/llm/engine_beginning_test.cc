// What prompts begin with alike is run once in each place: fewer rows, and not one bit changed.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>

#include "host/error.h"
#include "kernels/backend.h"
#include "kernels/cpu/kernel_table.h"
#include "llm/engine.h"
#include "tests/llm/counting_decoder.h"
#include "tests/llm/random_phi.h"

namespace ocelli::llm {
namespace {

using kernels::DType;
using kernels::Tensor;
using Pieces = std::vector<ContextPiece>;
using Tokens = std::vector<int32_t>;

struct Said {
  Tokens tokens;
  std::vector<float> probabilities;
  bool operator==(const Said&) const = default;
};

struct Case {
  kernels::BackendOptions backend;
  bool quantised = false;
  DType cache = DType::kF32;
};

int size_of(const Pieces& prompt) {
  return std::accumulate(prompt.begin(), prompt.end(), 0,
                         [](int sum, const ContextPiece& piece) { return sum + piece.size(); });
}

Tokens beginning_of(const Pieces& prompt) {
  Tokens tokens;
  for (const ContextPiece& piece : prompt) {
    if (piece.tokens.empty()) break;
    tokens.insert(tokens.end(), piece.tokens.begin(), piece.tokens.end());
  }
  return tokens;
}

// How many rows of `next` a place need not run that has run `last`.
int alike(const Pieces& last, const Pieces& next) {
  const Tokens a = beginning_of(last);
  const Tokens b = beginning_of(next);
  const auto count = std::ranges::mismatch(a, b).in1 - a.begin();
  return std::min(static_cast<int>(count), size_of(next) - 1);
}

class BeginningsTest : public testing::Test {
 protected:
  explicit BeginningsTest(const Case& tested)
      : phi_(7, tested.quantised), ops_(kernels::make_backend(tested.backend)), random_(1) {
    limits_.sequences = 1;
    limits_.capacity = 128;
    limits_.max_rows = 64;
    limits_.kv_dtype = tested.cache;
    for (int i = 0; i < 33; ++i) template_.push_back(token());
    remake();
  }

  void remake() {
    decoder_ = std::make_unique<CountingDecoder>(make_phi());
    engine_ = std::make_unique<Engine>(*ops_, *decoder_);
    other_ = make_phi();
  }
  std::unique_ptr<Decoder> make_phi() {
    return std::make_unique<Phi2>(*ops_, phi_.config(), phi_.weights(), limits_);
  }

  int below(int limit) { return static_cast<int>(random_.next() % static_cast<uint64_t>(limit)); }
  int32_t token() { return below(phi_.config().vocab_size); }
  Tokens tokens(int count) {
    Tokens some(count);
    for (int32_t& one : some) one = token();
    return some;
  }
  Tensor picture(int rows) {
    const Tensor made =
        ops_->tensor(rows, phi_.config().hidden_size, DType::kF32, kernels::Placement::kActivation);
    std::vector<float> values(static_cast<size_t>(rows) * made.cols);
    for (float& value : values) value = 2 * static_cast<float>(random_.uniform()) - 1;
    ops_->write(values, made);
    return made;
  }
  // The template's text, a picture, and a question.
  Pieces question(int rows = 40) {
    return {{template_, {}}, {{}, picture(rows)}, {tokens(3 + below(8)), {}}};
  }

  static GenerationOptions options(int max_tokens = 4) {
    GenerationOptions made;
    made.max_tokens = max_tokens;
    made.probabilities = true;
    return made;
  }
  static void add(const Output& output, Said& said) {
    said.tokens.push_back(output.token);
    said.probabilities.push_back(output.probability);
  }
  Said run(Engine& engine, int sequence) {
    Said said;
    while (engine.busy()) {
      for (const Output& output : engine.step()) {
        if (output.sequence == sequence) add(output, said);
      }
    }
    return said;
  }
  // By an engine that has run nothing before.
  Said alone(const Pieces& prompt, int max_tokens = 4) {
    Engine engine(*ops_, *other_);
    const int sequence = *engine.open();
    engine.submit(sequence, prompt, options(max_tokens));
    return run(engine, sequence);
  }
  // Opens a sequence of engine_; what it begins with and has not to run is past().
  int begin(const Pieces& prompt, int max_tokens = 4) {
    const int sequence = *engine_->open();
    EXPECT_EQ(engine_->past(sequence), 0);
    engine_->submit(sequence, prompt, options(max_tokens));
    return sequence;
  }
  // Whether engine_ skips `rows` of a prompt and says what an engine says that skips none.
  void expect_skipped(int rows, const Pieces& prompt, int max_tokens = 4) {
    const Said expected = alone(prompt, max_tokens);
    const int sequence = begin(prompt, max_tokens);
    EXPECT_EQ(engine_->past(sequence), rows);
    EXPECT_EQ(engine_->room(sequence), limits_.capacity - size_of(prompt));
    decoder_->rows = 0;
    const Said said = run(*engine_, sequence);
    EXPECT_EQ(said, expected);
    // The last token needs no row.
    EXPECT_EQ(decoder_->rows, size_of(prompt) - rows + static_cast<int>(said.tokens.size()) - 1);
    engine_->close(sequence);
  }

  RandomPhi phi_;
  std::unique_ptr<kernels::Ops> ops_;
  Random random_;
  DecoderLimits limits_;
  std::unique_ptr<CountingDecoder> decoder_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Decoder> other_;
  Tokens template_;
};

class Beginnings : public BeginningsTest, public testing::WithParamInterface<Case> {
 protected:
  Beginnings() : BeginningsTest(GetParam()) {}
};

// What does not depend on how rows are computed.
class BeginningsOnce : public BeginningsTest {
 protected:
  BeginningsOnce() : BeginningsTest({{"cpu", 1, ""}, true, DType::kI8}) {}
};

TEST_P(Beginnings, OfQuestionsInOnePlaceAreRunOnce) {
  const int same = static_cast<int>(template_.size());
  expect_skipped(0, question());
  for (int i = 0; i < 2; ++i) expect_skipped(same, question());
  // Cut where the template is.
  Pieces cut = question(1);
  cut[0].tokens.assign(template_.begin(), template_.begin() + 12);
  cut.insert(cut.begin() + 1, {Tokens(template_.begin() + 12, template_.end()), {}});
  expect_skipped(same, cut);
  // Another text, and a picture before any.
  Pieces other = question();
  other[0].tokens[20] = (other[0].tokens[20] + 1) % phi_.config().vocab_size;
  expect_skipped(20, other);
  expect_skipped(20, question());
  expect_skipped(0, {{{}, picture(9)}, {template_, {}}});
  expect_skipped(0, question());
}

TEST_P(Beginnings, OfAllKindsInSeveralPlacesChangeNothing) {
  limits_.sequences = 3;
  limits_.max_rows = 40;
  remake();
  std::vector<Pieces> prompts;
  for (int i = 0; i < 12; ++i) {
    Pieces prompt = question(1 + below(30));
    switch (below(4)) {
      case 0:
        break;
      case 1:  // another text after a while
        prompt[0].tokens[below(33)] = token();
        break;
      case 2:  // a text that is longer or shorter
        prompt[0].tokens.resize(1 + below(60), 5);
        break;
      default:  // nothing but a text
        prompt = {{Tokens(template_.begin(), template_.begin() + 1 + below(33)), {}}};
    }
    prompts.push_back(std::move(prompt));
  }
  std::vector<Said> expected;
  for (size_t i = 0; i < prompts.size(); ++i) {
    expected.push_back(alone(prompts[i], 1 + static_cast<int>(i % 5)));
  }
  std::vector<Said> found(prompts.size());
  std::vector<int> owner(limits_.sequences, -1);
  int rows = 0;
  int skipped = 0;
  size_t next = 0;
  while (next < prompts.size() || engine_->busy()) {
    while (next < prompts.size()) {
      const std::optional<int> place = engine_->open();
      if (!place) break;
      const int max_tokens = 1 + static_cast<int>(next % 5);
      engine_->submit(*place, prompts[next], options(max_tokens));
      const int last = std::exchange(owner[*place], static_cast<int>(next));
      EXPECT_EQ(engine_->past(*place), last < 0 ? 0 : alike(prompts[last], prompts[next])) << next;
      skipped += engine_->past(*place);
      rows += size_of(prompts[next++]) + max_tokens - 1;
    }
    for (const Output& output : engine_->step()) {
      add(output, found[owner[output.sequence]]);
      if (output.finish != FinishReason::kNone) engine_->close(output.sequence);
    }
  }
  for (size_t i = 0; i < prompts.size(); ++i) EXPECT_EQ(found[i], expected[i]) << "prompt " << i;
  EXPECT_GT(skipped, 0);
  EXPECT_EQ(decoder_->rows, rows - skipped);
}

// Attention of tokens that are sampled is more exact than a prompt's.
TEST_P(Beginnings, DoNotReachIntoAnAnswer) {
  const Pieces text = {{template_, {}}};
  const Said said = alone(text, 9);
  expect_skipped(0, text, 9);
  Pieces longer = {{template_, {}}, {said.tokens, {}}, {tokens(5), {}}};
  expect_skipped(static_cast<int>(template_.size()), longer);
}

TEST_F(BeginningsOnce, ArePromptsOfTokensButForTheirLastRow) {
  const Pieces text = {{template_, {}}};
  expect_skipped(0, text, 9);
  expect_skipped(32, text, 9);
  const Pieces shorter = {{Tokens(template_.begin(), template_.begin() + 11), {}}};
  expect_skipped(10, shorter, 9);
  expect_skipped(11, text, 9);
  expect_skipped(0, {{{template_[0]}, {}}});
}

TEST_F(BeginningsOnce, OfPromptsGivenUpAreWhatWasRunOfThem) {
  limits_.max_rows = 10;
  remake();
  for (int steps = 0; steps < 6; ++steps) {
    const int sequence = begin(question());
    EXPECT_EQ(engine_->past(sequence), 0);
    for (int i = 0; i < steps; ++i) engine_->step();
    engine_->close(sequence);
    const int run = std::min(10 * steps, static_cast<int>(template_.size()));
    expect_skipped(run, question());
    expect_skipped(0, {{{}, picture(2)}});  // another one, so that nothing is left
  }
  // What is skipped is there before any step.
  expect_skipped(0, question());
  engine_->close(begin(question()));
  expect_skipped(static_cast<int>(template_.size()), question());
}

TEST_F(BeginningsOnce, AreOfTheFirstPromptOfAConversation) {
  const Pieces first = question(20);
  const Pieces second = {{template_, {}}};
  Pieces both = first;
  const Said said = alone(first);
  both.push_back({said.tokens, {}});
  both.insert(both.end(), second.begin(), second.end());
  expect_skipped(0, question());
  const int sequence = begin(first);
  EXPECT_EQ(run(*engine_, sequence), said);
  const int past = engine_->past(sequence);
  engine_->submit(sequence, second, options());
  EXPECT_EQ(engine_->past(sequence), past);  // its tokens are others, though they are alike
  run(*engine_, sequence);
  EXPECT_EQ(engine_->past(sequence), past + 1 + size_of(second) + 3);
  engine_->close(sequence);
  const Tokens zeros(60, 0);  // nothing that stands behind the template is known
  expect_skipped(static_cast<int>(template_.size()), {{template_, {}}, {zeros, {}}});

  // A prompt that was stopped before it was run goes before the next one.
  const int again = begin({{template_, {}}});
  EXPECT_EQ(engine_->past(again), size_of(second) - 1);
  engine_->stop(again);
  const Pieces tail = {{}, {tokens(6), {}}};
  engine_->submit(again, {tail[1]}, options());
  EXPECT_EQ(engine_->past(again), size_of(second) - 1);
  EXPECT_EQ(run(*engine_, again), alone({{template_, {}}, tail[1]}));
}

TEST_F(BeginningsOnce, OutliveARefusedPrompt) {
  expect_skipped(0, question());
  const int sequence = *engine_->open();
  EXPECT_THROW(engine_->submit(sequence, question(), options(limits_.capacity)), host::Error);
  EXPECT_EQ(engine_->past(sequence), 0);
  engine_->close(sequence);
  expect_skipped(static_cast<int>(template_.size()), question());
}

TEST_F(BeginningsOnce, AreForgottenWithWhatIsNotFinite) {
  expect_skipped(0, question());
  Pieces spoiled = question();
  const std::vector<float> values(phi_.config().hidden_size,
                                  std::numeric_limits<float>::quiet_NaN());
  ops_->write(values, spoiled[1].rows.row_range(3, 1));
  const int sequence = begin(spoiled);
  FinishReason reason = FinishReason::kNone;
  while (engine_->busy()) {
    for (const Output& output : engine_->step()) reason = output.finish;
  }
  EXPECT_EQ(reason, FinishReason::kNotFinite);
  engine_->submit(sequence, {{template_, {}}}, options());  // and what follows it is none
  run(*engine_, sequence);
  engine_->close(sequence);
  expect_skipped(0, question());
  expect_skipped(static_cast<int>(template_.size()), question());
}

TEST_F(BeginningsOnce, OfStepsThatFailedDoNotCount) {
  limits_.max_rows = 10;
  remake();
  int sequence = begin(question());
  engine_->step();
  decoder_->fail_next = true;
  EXPECT_THROW(engine_->step(), host::Error);
  engine_->step();
  engine_->close(sequence);
  expect_skipped(10, question());

  // Of what was to be run the first half is lost, and the second stands in its place.
  const Tokens first = tokens(4);
  sequence = begin({{first, {}}, {tokens(6), {}}, {tokens(10), {}}});
  decoder_->fails_to_embed = 6;
  EXPECT_THROW(engine_->step(), host::Error);
  decoder_->fails_to_embed = 0;
  engine_->step();
  engine_->close(sequence);
  expect_skipped(0, {{first, {}}, {tokens(3), {}}});
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const std::string& name : kernels::backend_names()) {
    if (name != "cpu") all.push_back({{name, 1, ""}, true, DType::kF16});
  }
  for (const kernels::cpu::KernelTable* table : kernels::cpu::supported_tables()) {
    const kernels::BackendOptions backend = {"cpu", 2, table->isa};
    all.push_back({backend, false, DType::kF32});
    for (const DType cache : {DType::kF16, DType::kI8}) all.push_back({backend, true, cache});
  }
  return all;
}

std::string case_name(const testing::TestParamInfo<Case>& info) {
  const Case& tested = info.param;
  std::string name = tested.backend.name + tested.backend.isa;
  std::ranges::replace(name, '-', '_');
  name += tested.quantised ? "_int8" : "_f32";
  return name + (tested.cache == DType::kF32   ? "_f32"
                 : tested.cache == DType::kF16 ? "_f16"
                                               : "_i8");
}

INSTANTIATE_TEST_SUITE_P(All, Beginnings, testing::ValuesIn(cases()), case_name);

}  // namespace
}  // namespace ocelli::llm
