// Phi2Config::parse: numbers out of range are refused before anything is computed from them.
#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "llm/phi2.h"
#include "tests/host/expect_error.h"

namespace ocelli::llm {
namespace {

Phi2Config parse(const std::string& text) {
  return Phi2Config::parse({nlohmann::json::parse(text), "config.json"});
}

TEST(Phi2Configs, HaveTheReferencesDefaults) {
  const Phi2Config config = parse("{}");
  EXPECT_EQ(config.rotary_dims, 32);
  EXPECT_EQ(config.layer_norm_eps, 1e-5F);
  EXPECT_EQ(config.rope_theta, 10000.0F);
}

TEST(Phi2Configs, TakeTheEndsOfTheirRanges) {
  EXPECT_EQ(parse(R"({"partial_rotary_factor":0})").rotary_dims, 0);
  EXPECT_EQ(parse(R"({"partial_rotary_factor":1})").rotary_dims, 64);
  EXPECT_EQ(parse(R"({"layer_norm_eps":0})").layer_norm_eps, 0.0F);
  EXPECT_EQ(parse(R"({"max_position_embeddings":1048576})").max_position_embeddings, 1 << 20);
}

TEST(Phi2Configs, RefuseNumbersOutOfRange) {
  for (const auto& [key, value, range] : std::vector<std::array<std::string, 3>>{
           {"partial_rotary_factor", "1e300", "a number from 0 to 1"},
           {"partial_rotary_factor", "-0.1", "a number from 0 to 1"},
           {"layer_norm_eps", "-1e-5", "a number from 0 to 1"},
           {"layer_norm_eps", "1e39", "a number from 0 to 1"},
           {"rope_theta", "0", "a number from 0.001 to 1e+12"},
           {"rope_theta", "1e39", "a number from 0.001 to 1e+12"},
           {"max_position_embeddings", "1048577", "an integer from 1 to 1048576"}}) {
    const std::string message = error_of([&] { parse("{\"" + key + "\":" + value + "}"); });
    EXPECT_TRUE(holds(message, "config.json: " + key + " is "));
    EXPECT_TRUE(holds(message, range));
  }
  EXPECT_TRUE(holds(error_of([] { parse(R"({"partial_rotary_factor":0.33})"); }),
                    "partial_rotary_factor 0.33 of a head of 64 is not an even number"));
}

}  // namespace
}  // namespace ocelli::llm
