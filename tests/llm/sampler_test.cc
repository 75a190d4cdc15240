// Greedy choice, and chances against those of Hugging Face's logits processors.
#include "llm/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <utility>
#include <vector>

#include "host/json.h"
#include "llm/likelihoods.h"
#include "llm/random.h"
#include "tests/host/expect_error.h"

namespace ocelli::llm {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

using Logits = std::vector<float>;

int32_t sample(const SamplerOptions& options, const Logits& logits,
               const std::vector<int32_t>& history = {}) {
  return Sampler(options, static_cast<int>(logits.size())).sample(logits, history);
}

// How often each token is drawn.
std::vector<double> frequencies(const SamplerOptions& options, const Logits& logits,
                                const std::vector<int32_t>& history, int draws) {
  Sampler sampler(options, static_cast<int>(logits.size()));
  std::vector<double> counts(logits.size());
  for (int i = 0; i < draws; ++i) counts.at(sampler.sample(logits, history)) += 1.0 / draws;
  return counts;
}

TEST(Random, IsTheGeneratorOfItsAuthors) {
  // The first numbers of splitmix64 from state 0, and of xoshiro256** from the state that
  // splitmix64 makes of 0, worked out by itself with Python's integers.
  uint64_t state = 0;
  EXPECT_EQ(splitmix64(state), 0xE220A8397B1DCDAFu);
  EXPECT_EQ(splitmix64(state), 0x6E789E6AA1B965F4u);
  Random random(0);
  EXPECT_EQ(random.next(), 0x99EC5F36CB75F2B4u);
  EXPECT_EQ(random.next(), 0xBF6E1F784956452Au);
  double sum = 0;
  for (int i = 0; i < 100'000; ++i) {
    const double number = random.uniform();
    ASSERT_TRUE(number >= 0 && number < 1);
    sum += number;
  }
  EXPECT_NEAR(sum / 100'000, 0.5, 0.005);
}

TEST(Sampler, GreedyTakesTheFirstOfTheLargest) {
  EXPECT_EQ(sample({}, {1, 3, 2, 3}), 1);
  EXPECT_EQ(sample({}, {-5}), 0);
  EXPECT_EQ(sample({}, {-kInfinity, -7, -kInfinity}), 1);
  for (int size = 1; size < 70; ++size) {
    for (int at = 0; at < size; ++at) {
      Logits logits(size, -1);
      logits[at] = 0.5F;
      logits[size - 1] = 0.5F;
      ASSERT_EQ(sample({}, logits), at) << size;
    }
  }
}

TEST(Sampler, LogitsThatAreNoNumbersAreReported) {
  SamplerOptions chance;
  chance.temperature = 1;
  SamplerOptions penalty;
  penalty.repetition_penalty = 2;
  for (const auto& options : {SamplerOptions{}, chance, penalty}) {
    for (const float fault : {kNan, kInfinity}) {
      for (const int at : {0, 3, 15, 16, 31, 34}) {
        Logits logits(35, 1);
        logits[at] = fault;
        EXPECT_EQ(sample(options, logits), Sampler::kNotFinite) << fault << " at " << at;
      }
    }
    EXPECT_EQ(sample(options, Logits(20, -kInfinity)), Sampler::kNotFinite);
  }
}

TEST(Sampler, PenaltyActsOnGreedyOncePerTokenAndOnlyThere) {
  SamplerOptions options;
  options.repetition_penalty = 2;
  const Logits logits = {3, 2, -1};
  EXPECT_EQ(sample(options, logits, {}), 0);
  EXPECT_EQ(sample(options, logits, {0}), 1);              // 3 / 2 < 2
  EXPECT_EQ(sample(options, logits, {0, 1, 0, 1, 0}), 0);  // 1.5 and 1, not less and less
  EXPECT_EQ(sample(options, logits, {-200, 3, 1 << 30}), 0);
  const Logits negative = {-1, -1.5F};
  EXPECT_EQ(sample(options, negative, {0}), 1);  // -1 · 2
  Sampler sampler(options, 3);
  EXPECT_EQ(sampler.sample(logits, std::vector<int32_t>{0}), 1);
  EXPECT_EQ(sampler.sample(logits, std::vector<int32_t>{1}),
            0);  // nothing is left of the first call
  EXPECT_EQ(sampler.sample(logits, std::vector<int32_t>{0}), 1);
}

TEST(Sampler, DrawsWithTheChancesOfHuggingFace) {
  const auto cases =
      host::read_json(std::filesystem::path(OCELLI_SOURCE_DIR) / "tests/golden/sampler.json");
  ASSERT_GE(cases.size(), 14u);
  constexpr int kDraws = 40'000;
  for (const auto& item : cases) {
    SamplerOptions options;
    options.temperature = item.at("temperature");
    options.top_k = item.at("top_k");
    options.top_p = item.at("top_p");
    options.repetition_penalty = item.at("repetition_penalty");
    options.seed = 11;
    const auto chances = item.at("probabilities").get<std::vector<double>>();
    const auto found = frequencies(options, item.at("logits"), item.at("history"), kDraws);
    for (size_t id = 0; id < chances.size(); ++id) {
      // Five standard deviations; never one that the processors have removed.
      const double margin = 5 * std::sqrt(chances[id] * (1 - chances[id]) / kDraws) + 1e-9;
      EXPECT_NEAR(found[id], chances[id], margin) << id << " of " << item;
    }
  }
}

TEST(Sampler, TopKKeepsAllThatEqualTheLast) {
  SamplerOptions options;
  options.temperature = 1;
  options.top_k = 2;
  const auto found = frequencies(options, {1, 0, 2, 1, 1}, {}, 2000);
  EXPECT_EQ(found[1], 0);
  for (const int id : {0, 2, 3, 4}) EXPECT_GT(found[id], 0) << id;
}

TEST(Sampler, DrawsFromTheLikeliestOfManyAsFromAllOfThem) {
  // A vocabulary of which few make up top_p: against a sort of all tokens in double.
  Random random(5);
  for (const int size : {15, 16, 17, 255, 256, 257, 5000, 32'000}) {
    Logits logits(size);
    for (float& logit : logits)
      logit = static_cast<float>(12 * random.uniform() * random.uniform());
    SamplerOptions options;
    options.temperature = 0.8F;
    options.top_p = 0.6F;
    std::vector<std::pair<double, int>> order;
    double total = 0;
    for (int id = 0; id < size; ++id) {
      order.emplace_back(-std::exp(logits[id] / 0.8), id);
      total -= order.back().first;
    }
    std::sort(order.begin(), order.end());
    std::vector<bool> kept(size);
    double mass = 0;
    double kept_mass = 0;
    for (const auto& [weight, id] : order) {
      // Where rounding decides, either is right.
      kept[id] = mass < (0.6 + 1e-5) * total;
      if (mass < 0.6 * total) kept_mass -= weight;
      mass -= weight;
    }
    const auto found = frequencies(options, logits, {}, 3000);
    for (int id = 0; id < size; ++id) {
      ASSERT_TRUE(kept[id] || found[id] == 0) << id << " of " << size;
    }
    const double chance = -order[0].first / kept_mass;
    EXPECT_NEAR(found[order[0].second], chance, 0.05 * chance + 5 * std::sqrt(chance / 3000));
  }
}

TEST(Likelihoods, AreExponentials) {
  Random random(6);
  for (const float temperature : {1.0F, 0.3F, 20.0F}) {
    for (const size_t size : {1, 3, 256, 300, 1000}) {
      Logits logits(size);
      for (float& logit : logits) logit = static_cast<float>(-50 * random.uniform());
      logits[0] = 7;
      logits[size / 2] = -kInfinity;
      logits[size - 1] = 7;
      std::vector<float> weights(size, kNan);
      double expected = 0;
      const double total = likelihoods(logits, 7, temperature, weights);
      for (size_t i = 0; i < size; ++i) {
        const double distance = (static_cast<double>(logits[i]) - 7) / temperature;
        const double weight = distance < -48 ? 0 : std::exp(distance);
        EXPECT_NEAR(weights[i], weight, 1e-5 * weight) << distance;
        expected += weight;
      }
      EXPECT_NEAR(total, expected, 1e-5 * expected);
      EXPECT_EQ(weights[size - 1], 1);
    }
  }
}

TEST(Sampler, TopPCountsWhatIsLikelier) {
  SamplerOptions options;
  options.temperature = 1;
  const Logits logits = {std::log(0.5F), std::log(0.3F), std::log(0.2F)};
  const auto kept = [&](float top_p) {
    options.top_p = top_p;
    const auto found = frequencies(options, logits, {}, 2000);
    return std::count_if(found.begin(), found.end(), [](double f) { return f > 0; });
  };
  EXPECT_EQ(kept(0.01F), 1);
  EXPECT_EQ(kept(0.49F), 1);
  EXPECT_EQ(kept(0.51F), 2);
  EXPECT_EQ(kept(0.79F), 2);
  EXPECT_EQ(kept(0.81F), 3);
}

TEST(Sampler, ExtremeTemperaturesAreSafe) {
  SamplerOptions options;
  options.temperature = 1e-30F;
  EXPECT_EQ(sample(options, {3e38F, -3e38F, 2.9e38F}), 0);
  options.temperature = 3e38F;
  const auto found = frequencies(options, {9, -9, -kInfinity}, {}, 4000);
  EXPECT_NEAR(found[0], 0.5, 0.05);
  EXPECT_EQ(found[2], 0);
}

TEST(Sampler, TheSeedDecidesAndNothingElse) {
  SamplerOptions options;
  options.temperature = 1;
  options.seed = 42;
  Logits logits(1000);
  Random random(3);
  for (float& logit : logits) logit = static_cast<float>(random.uniform());
  const auto draws = [&](uint64_t seed) {
    options.seed = seed;
    Sampler sampler(options, 1000);
    std::vector<int32_t> ids(20);
    for (int32_t& id : ids) id = sampler.sample(logits, {});
    return ids;
  };
  EXPECT_EQ(draws(42), draws(42));
  EXPECT_NE(draws(42), draws(43));
}

TEST(Sampler, OptionsWithoutSenseAreNamed) {
  const auto refusal = [](auto change) {
    SamplerOptions options;
    change(options);
    return error_of([&] { Sampler(options, 10); });
  };
  EXPECT_TRUE(holds(refusal([](auto& o) { o.temperature = -1; }), "the temperature is -1"));
  EXPECT_TRUE(holds(refusal([](auto& o) { o.temperature = kNan; }), "the temperature is nan"));
  EXPECT_TRUE(holds(refusal([](auto& o) { o.temperature = kInfinity; }), "temperature"));
  EXPECT_TRUE(holds(refusal([](auto& o) { o.top_k = -1; }), "top-k is -1"));
  EXPECT_TRUE(holds(refusal([](auto& o) { o.top_p = 0; }), "top-p is 0"));
  EXPECT_TRUE(holds(refusal([](auto& o) { o.top_p = 1.1F; }), "top-p is 1.1"));
  EXPECT_TRUE(holds(refusal([](auto& o) { o.top_p = kNan; }), "top-p is nan"));
  EXPECT_TRUE(holds(refusal([](auto& o) { o.repetition_penalty = 0; }), "penalty is 0"));
}

TEST(Sampler, TokenProbabilityIsTheSoftmax) {
  const Logits logits = {std::log(0.5F), std::log(0.3F), std::log(0.2F), -kInfinity};
  EXPECT_NEAR(token_probability(logits, 0), 0.5, 1e-6);
  EXPECT_NEAR(token_probability(logits, 2), 0.2, 1e-6);
  EXPECT_EQ(token_probability(logits, 3), 0);
  EXPECT_NEAR(token_probability(Logits{1e30F, 1e30F}, 1), 0.5, 1e-6);
}

}  // namespace
}  // namespace ocelli::llm
