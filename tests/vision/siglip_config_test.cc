// SiglipConfig::parse: numbers out of range are refused.
#include <gtest/gtest.h>

#include "tests/host/expect_error.h"
#include "vision/siglip.h"

namespace ocelli::vision {
namespace {

SiglipConfig parse(const std::string& text) {
  return SiglipConfig::parse({nlohmann::json::parse(text), "config.json"}, -1);
}

TEST(SiglipConfigs, RefuseAnEpsilonOutOfRange) {
  EXPECT_EQ(parse("{}").layer_norm_eps, 1e-6F);
  EXPECT_EQ(parse(R"({"layer_norm_eps":1})").layer_norm_eps, 1.0F);
  for (const std::string value : {"-1e-9", "1.5", "1e300"}) {
    EXPECT_TRUE(holds(error_of([&] { parse("{\"layer_norm_eps\":" + value + "}"); }),
                      "wanted a number from 0 to 1"));
  }
}

}  // namespace
}  // namespace ocelli::vision
