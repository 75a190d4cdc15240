// What a decoder leaves out of its last layer changes no bit of what is wanted: random decoders of
// both kinds, with weights of every kind, on every backend.
#include "llm/layered_decoder.h"

#include <gtest/gtest.h>

#include <numeric>

#include "kernels/attention_probe.h"
#include "kernels/packing.h"
#include "kernels/pair_packing.h"
#include "llm/llama2.h"
#include "llm/phi2.h"
#include "tests/kernels/ops_testing.h"

namespace ocelli::llm {
namespace {

using kernels::DType;
using kernels::LinearSource;
using kernels::Matrix;
using kernels::Segment;
using kernels::Tensor;
using Rows = std::vector<int32_t>;

enum class Format { kFloats, kInt8, kInt4, kBf16 };

// Makes the random matrices of a model and keeps their memory.
class RandomWeights {
 public:
  explicit RandomWeights(Format format) : format_(format) {}

  kernels::HostTensor vector(int size, float low, float high) {
    return keep(kernels::store_vector(random_.matrix(1, size, low, high), DType::kF32));
  }
  kernels::HostTensor table(int rows, int cols) {
    return keep(kernels::store(random_.matrix(rows, cols), DType::kF32));
  }
  LinearSource linear(const std::vector<int>& outputs, int inputs, bool biased) {
    LinearSource source;
    for (const int rows : outputs) {
      source.weights.push_back(
          keep(kernels::store(random_.matrix(rows, inputs, -0.2F, 0.2F), DType::kF32)));
      if (biased) source.biases.push_back(vector(rows, -0.5F, 0.5F));
    }
    if (format_ == Format::kBf16) {
      pairs_.push_back(std::make_unique<kernels::PairStack>(source, pool_));
      source.weights = pairs_.back()->weights();
    } else if (format_ != Format::kFloats) {
      const kernels::PanelFormat panels = {0, format_ == Format::kInt4 ? 32 : 0};
      panels_.push_back(std::make_unique<kernels::PackedStack>(source, panels, pool_));
      source.weights = panels_.back()->weights();
    }
    return source;
  }

 private:
  kernels::HostTensor keep(std::unique_ptr<kernels::Stored> stored) {
    kept_.push_back(std::move(stored));
    return kept_.back()->tensor();
  }

  Format format_;
  kernels::Random random_{11};
  host::ThreadPool pool_{1};
  std::vector<std::unique_ptr<kernels::Stored>> kept_;
  std::vector<std::unique_ptr<kernels::PackedStack>> panels_;
  std::vector<std::unique_ptr<kernels::PairStack>> pairs_;
};

void set_shape(DecoderConfig& config, int hidden, int heads, int kv_heads) {
  config.hidden_size = hidden;
  config.intermediate_size = 96;
  config.num_hidden_layers = 2;
  config.num_attention_heads = heads;
  config.num_key_value_heads = kv_heads;
  config.vocab_size = 40;
}

std::unique_ptr<Decoder> make_phi(kernels::Ops& ops, RandomWeights& make,
                                  const DecoderLimits& limits) {
  Phi2Config config;
  set_shape(config, 160, 2, 2);
  Phi2Weights weights;
  weights.embed_tokens = make.table(40, 160);
  for (int i = 0; i < config.num_hidden_layers; ++i) {
    weights.layers.push_back({make.vector(160, 0.5F, 1.5F), make.vector(160, -0.5F, 0.5F),
                              make.linear({160, 160, 160}, 160, true),
                              make.linear({160}, 160, true), make.linear({96}, 160, true),
                              make.linear({160}, 96, true)});
  }
  weights.final_norm_weight = make.vector(160, 0.5F, 1.5F);
  weights.final_norm_bias = make.vector(160, -0.5F, 0.5F);
  weights.lm_head = make.linear({40}, 160, true);
  return std::make_unique<Phi2>(ops, config, weights, limits);
}

// Heads of 20, so that panels of k end with outputs that stand for none; two of queries share keys.
std::unique_ptr<Decoder> make_llama(kernels::Ops& ops, RandomWeights& make,
                                    const DecoderLimits& limits) {
  Llama2Config config;
  set_shape(config, 120, 6, 3);
  Llama2Weights weights;
  weights.embed_tokens = make.table(40, 120);
  for (int i = 0; i < config.num_hidden_layers; ++i) {
    weights.layers.push_back({make.vector(120, 0.5F, 1.5F), make.linear({120, 60, 60}, 120, false),
                              make.linear({120}, 120, false), make.vector(120, 0.5F, 1.5F),
                              make.linear({96}, 120, false), make.linear({96}, 120, false),
                              make.linear({120}, 96, false)});
  }
  weights.norm = make.vector(120, 0.5F, 1.5F);
  weights.lm_head = make.linear({40}, 120, false);
  return std::make_unique<Llama2>(ops, config, weights, limits);
}

struct Step {
  std::vector<Segment> segments;
  Rows wanted;

  int rows() const {
    return std::accumulate(segments.begin(), segments.end(), 0,
                           [](int sum, const Segment& s) { return sum + s.rows; });
  }
};

// Prompts whole and in pieces, tokens beside them, and rows of a prompt that are wanted for
// themselves.
const std::vector<Step> kSteps = {
    {{{0, 0, 20, 0}, {1, 20, 7, 0}, {2, 27, 5, 0}}, {19, 31}},
    {{{0, 0, 1, 20, true}, {2, 1, 1, 5, true}, {1, 2, 9, 7}}, {0, 1, 10}},
    {{{3, 0, 40, 0}}, {}},
    {{{3, 0, 1, 40}}, {}},
    {{{3, 0, 10, 41}}, {3, 4, 5, 6, 7, 8, 9}},
    {{{2, 0, 1, 6, true}, {3, 1, 30, 51}}, {0, 3, 4, 5, 20, 30}},
    {{{0, 0, 1, 21, true}, {1, 1, 1, 16, true}, {2, 2, 1, 7, true}, {3, 3, 1, 81, true}},
     {0, 1, 2, 3}},
};

class LastLayer : public kernels::EveryBackend {
 protected:
  // The logits of a step's wanted rows; the step's rows are always the same.
  Matrix run(Decoder& decoder, const Step& step, const Rows& wanted) {
    kernels::Random random(step.rows());
    const Matrix input = random.matrix(step.rows(), decoder.hidden_size());
    const auto activation = [&](int rows, int cols) {
      return ops->tensor(rows, cols, DType::kF32, kernels::Placement::kActivation);
    };
    const Tensor x = activation(input.rows, input.cols);
    ops->write(input.values, x);
    const Tensor last = decoder.forward(x, step.segments, wanted);
    Matrix found(last.rows, decoder.vocab_size());
    EXPECT_EQ(last.rows, static_cast<int>(wanted.size()));
    if (wanted.empty()) return found;
    const Tensor logits = activation(found.rows, found.cols);
    decoder.logits(last, logits);
    ops->read(logits, found.values);
    return found;
  }

  template <typename Make>
  void expect_same_logits(const Make& make, Format format, DType kv_dtype) {
    RandomWeights same(format);
    RandomWeights weights(format);
    RandomWeights again(format);
    DecoderLimits limits;
    limits.sequences = 4;
    limits.capacity = 96;
    limits.max_rows = 40;
    limits.kv_dtype = kv_dtype;
    const auto whole = make(*ops, same, limits);
    const auto part = make(*ops, weights, limits);
    limits.every_row = true;
    const auto watched = make(*ops, again, limits);
    for (const Step& step : kSteps) {
      Rows all(step.rows());
      std::iota(all.begin(), all.end(), 0);
      const Matrix expected = run(*whole, step, all);
      for (Decoder* decoder : {part.get(), watched.get()}) {
        const Matrix found = run(*decoder, step, step.wanted);
        for (size_t i = 0; i < step.wanted.size(); ++i) {
          const int row = step.wanted[i];
          kernels::expect_same_bits(found.row_range(static_cast<int>(i), 1),
                                    expected.row_range(row, 1));
          ASSERT_FALSE(HasFailure()) << "row " << row << " of step " << &step - kSteps.data();
        }
      }
    }
  }
};

TEST_P(LastLayer, LeavesNoTraceInThePhisLogits) {
  expect_same_logits(make_phi, Format::kFloats, DType::kF32);
  expect_same_logits(make_phi, Format::kInt8, DType::kI8);
  expect_same_logits(make_phi, Format::kInt4, DType::kI8);
  expect_same_logits(make_phi, Format::kBf16, DType::kF16);
}

TEST_P(LastLayer, LeavesNoTraceInTheLlamasLogits) {
  expect_same_logits(make_llama, Format::kFloats, DType::kF16);
  expect_same_logits(make_llama, Format::kInt8, DType::kF32);
  expect_same_logits(make_llama, Format::kInt4, DType::kI8);
  expect_same_logits(make_llama, Format::kBf16, DType::kI8);
}

INSTANTIATE_TEST_SUITE_P(Backends, LastLayer, testing::ValuesIn(kernels::all_backends()),
                         kernels::backend_test_name);

// Where row 9 of a prompt of 20 looks, when only the last row is wanted or all are.
std::vector<float> looks_of_a_row(bool every_row, bool all_wanted) {
  const auto probe = kernels::make_attention_probe(kernels::make_backend({"cpu", 1, ""}));
  RandomWeights weights(Format::kFloats);
  DecoderLimits limits;
  limits.every_row = every_row;
  limits.capacity = limits.max_rows = 20;
  const auto phi = make_phi(*probe, weights, limits);
  const Tensor x = probe->tensor(20, 160, DType::kF32, kernels::Placement::kActivation);
  probe->write(kernels::Random(3).matrix(20, 160).values, x);
  const int watch = probe->begin({0, 0, 9, 9, 1});
  Rows wanted(20);
  std::iota(wanted.begin(), wanted.end(), 0);
  if (!all_wanted) wanted = {19};
  phi->forward(x, std::vector<Segment>{{0, 0, 20, 0}}, wanted);
  return probe->end(watch).weights;
}

TEST(EveryRow, PassesThroughTheLastLayerForWhoWatchesIt) {
  const std::vector<float> expected = looks_of_a_row(false, true);
  ASSERT_EQ(expected.size(), 9U);
  EXPECT_EQ(looks_of_a_row(true, false), expected);
  EXPECT_NE(looks_of_a_row(false, false), expected);  // the last layer's are missing
}

void expect_segments(const std::vector<Segment>& segments, const Rows& wanted,
                     const std::vector<Segment>& expected) {
  std::vector<Segment> memory = {{9, 9, 9, 9}};  // of a call before
  const std::span<const Segment> found = select_rows(segments, wanted, memory);
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].sequence, expected[i].sequence) << i;
    EXPECT_EQ(found[i].first_row, expected[i].first_row) << i;
    EXPECT_EQ(found[i].rows, expected[i].rows) << i;
    EXPECT_EQ(found[i].past, expected[i].past) << i;
    EXPECT_EQ(found[i].sampled, expected[i].sampled) << i;
  }
}

TEST(SelectRows, KeepsEachRowsSequenceAndPosition) {
  // A prompt stands behind another one's token, and the segments come in any order.
  const std::vector<Segment> segments = {{2, 11, 6, 40}, {5, 0, 10, 7}, {0, 10, 1, 30, true}};
  expect_segments(segments, {}, {});
  expect_segments(segments, {9, 10, 16}, {{5, 0, 1, 16}, {0, 1, 1, 30, true}, {2, 2, 1, 45}});
  expect_segments(segments, {0, 1, 2, 4, 5, 11}, {{5, 0, 3, 7}, {5, 3, 2, 11}, {2, 5, 1, 40}});
}

TEST(SelectRowsDeathTest, RefusesRowsThatAreNotThereOrDoNotAscend) {
  const std::vector<Segment> segments = {{0, 0, 3, 0}};
  EXPECT_DEATH(expect_segments(segments, {3}, {}), "row 3 is in no segment");
  EXPECT_DEATH(expect_segments(segments, {1, 1}, {}), "row 1 after row 1");
}

}  // namespace
}  // namespace ocelli::llm
