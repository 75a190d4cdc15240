// Maps of where a model looked: drawn where the patches lie, made of what was recorded, and on the
// things that the words name.
#include "app/heatmap.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "app/conversation.h"
#include "tests/app/command.h"

namespace ocelli::app {
namespace {

using vision::Image;

struct Point {
  double x = 0;  // fractions of the picture
  double y = 0;
};

// How much a pixel is of the colours of heat, which are far from the grey ones below them.
int heat_of(const Image& map, int x, int y) {
  const uint8_t* pixel = map.rgb.data() + (size_t{3} * map.width * y + size_t{3} * x);
  return pixel[0] + pixel[1] - 2 * pixel[2];
}

// The middle of the hottest pixels.
Point hottest(const Image& map) {
  int most = -1000;
  int count = 0;
  Point sum;
  for (int y = 0; y < map.height; ++y) {
    for (int x = 0; x < map.width; ++x) {
      const int heat = heat_of(map, x, y);
      if (heat > most) {
        most = heat;
        count = 0;
        sum = {};
      }
      if (heat < most) continue;
      ++count;
      sum.x += x + 0.5;
      sum.y += y + 0.5;
    }
  }
  return {sum.x / count / map.width, sum.y / count / map.height};
}

Image grey(int width, int height) {
  return {width, height, std::vector<uint8_t>(size_t{3} * width * height, 128)};
}

// Four by four patches.
VisionConfig small_config(AspectRatio aspect, int first_row) {
  VisionConfig config;
  config.siglip.image_size = 32;
  config.siglip.patch_size = 8;
  config.aspect = aspect;
  config.first_row = first_row;
  return config;
}

// The map of a picture whose patch at (column, row) has all of the weight.
Image map_with(const Image& picture, const VisionConfig& config, int column, int row) {
  RowWeights weights(static_cast<size_t>(config.image_rows()));
  weights.at(static_cast<size_t>(row * 4 + column - config.first_row)) = 1;
  return draw_heatmap(picture, weights, 1, config);
}

void expect_at(const Image& map, double x, double y) {
  const Point peak = hottest(map);
  EXPECT_NEAR(peak.x * map.width, x, 3);
  EXPECT_NEAR(peak.y * map.height, y, 3);
}

TEST(Heatmap, AStretchedPicturesPatchesAreStretched) {
  for (const int first_row : {0, 1}) {
    const VisionConfig config = small_config(AspectRatio::kSquare, first_row);
    expect_at(map_with(grey(160, 80), config, 2, 1), 100, 30);
    expect_at(map_with(grey(80, 160), config, 2, 1), 50, 60);
  }
}

TEST(Heatmap, APaddedPictureLiesInTheMiddleOfItsSquare) {
  for (const int first_row : {0, 1}) {
    const VisionConfig config = small_config(AspectRatio::kPad, first_row);
    // Of the square of 160, a wide picture has the rows from 40 to 120; a patch takes 40.
    expect_at(map_with(grey(160, 80), config, 2, 1), 100, 20);
    expect_at(map_with(grey(160, 80), config, 1, 2), 60, 60);
    expect_at(map_with(grey(80, 160), config, 2, 0), 60, 20);
    // What it saw in the padding is on no picture.
    const Image beside = map_with(grey(160, 80), config, 1, 0);
    const Image cold = draw_heatmap(grey(160, 80), RowWeights(16 - first_row), 1, config);
    EXPECT_LT(heat_of(beside, 60, 40) - heat_of(cold, 60, 40), 10);
  }
}

TEST(Heatmap, ALargePictureIsScaledDownFirst) {
  const VisionConfig config = small_config(AspectRatio::kSquare, 0);
  Image large = grey(2000, 1000);
  for (size_t i = 0; i < large.rgb.size(); ++i) large.rgb[i] = static_cast<uint8_t>(i / 7 % 251);
  const Image map = map_with(large, config, 1, 1);
  EXPECT_EQ(map.width, 1280);
  EXPECT_EQ(map.height, 640);
  EXPECT_EQ(map_with(heatmap_ground(large), config, 1, 1), map);
}

TEST(Heatmap, NoWeightsAreNoHeat) {
  const VisionConfig config = small_config(AspectRatio::kSquare, 1);
  const Image map = draw_heatmap(grey(20, 20), RowWeights(15), 0, config);
  EXPECT_EQ(std::ranges::count(map.rgb, map.rgb[0]), static_cast<int64_t>(map.rgb.size()));
}

// The demo, its pictures brought to a square and its rows selected as said.
fs::path demo_with(const TemporaryFolder& folder, const char* aspect, const char* select) {
  const fs::path model = folder / "model";
  fs::copy(source_path("assets/demo"), model);
  auto config = nlohmann::json::parse(read_file(model / "config.json"));
  config["image_aspect_ratio"] = aspect;
  config["vision_feature_select_strategy"] = select;
  write_file(model / "config.json", config.dump());
  return model;
}

PipelineOptions probing(int sequences) {
  PipelineOptions options;
  options.probe = true;
  options.sequences = sequences;
  return options;
}

void run_to_end(Pipeline& pipeline, const std::vector<Conversation*>& conversations) {
  const auto busy = [](const Conversation* conversation) { return !conversation->finished(); };
  while (std::ranges::any_of(conversations, busy)) {
    for (const llm::Output& output : pipeline.engine().step()) {
      for (Conversation* conversation : conversations) {
        if (conversation->sequence() == output.sequence) conversation->accept(output);
      }
    }
  }
  for (Conversation* conversation : conversations) conversation->finish();
}

AnswerOptions at_most(int tokens) {
  AnswerOptions options;
  options.max_tokens = tokens;
  return options;
}

Pictures scenes(const std::vector<std::string>& names) {
  Pictures pictures;
  for (const std::string& name : names) {
    pictures.images.push_back(vision::read_image(source_path("assets/scenes/" + name).string()));
  }
  return pictures;
}

double sum_of(const RowWeights& weights) {
  return std::accumulate(weights.begin(), weights.end(), 0.0);
}

// What gaze.h says, computed from whole rows of attention.
std::vector<RowWeights> expected_gaze(const kernels::AttentionRecord& answer,
                                      const std::vector<kernels::AttentionRecord>& behind,
                                      const std::vector<PicturePlace>& places) {
  std::vector<std::vector<double>> parts;
  std::vector<double> shares;
  for (size_t p = 0; p < places.size(); ++p) {
    const auto rows = static_cast<size_t>(places[p].rows);
    const auto first = static_cast<size_t>(places[p].position);
    std::vector<double> looks(rows);
    for (int r = 0; r < answer.rows; ++r) {
      const float* row = answer.weights.data() + int64_t{r} * answer.keys;
      for (size_t i = 0; i < rows; ++i) looks[i] += row[first + i];
    }
    const double sum = std::accumulate(looks.begin(), looks.end(), 0.0);
    double sinks = 0;
    for (size_t i = 0; i < rows; ++i) sinks += behind[p].weights[first + i];
    for (size_t i = 0; i < rows; ++i) {
      looks[i] = std::max(0.0, looks[i] / sum - behind[p].weights[first + i] / sinks);
    }
    shares.push_back(sum);
    parts.push_back(std::move(looks));
  }
  const double all = std::accumulate(shares.begin(), shares.end(), 0.0);
  std::vector<RowWeights> expected;
  for (size_t p = 0; p < parts.size(); ++p) {
    const double rest = std::accumulate(parts[p].begin(), parts[p].end(), 0.0);
    RowWeights& weights = expected.emplace_back();
    for (const double part : parts[p]) {
      weights.push_back(static_cast<float>(part / rest * shares[p] / all));
    }
  }
  return expected;
}

class GazeOf : public testing::TestWithParam<std::pair<const char*, const char*>> {};

// select patch and cls_patch, square and pad; two pictures.
TEST_P(GazeOf, TwoPicturesIsWhatTheRowsOfTheAnswerLookedAt) {
  const TemporaryFolder folder;
  const auto [aspect, select] = GetParam();
  Pipeline pipeline(demo_with(folder, aspect, select), probing(1));
  Conversation conversation(pipeline);
  const std::string question = "Describe the picture.";
  std::vector<PicturePlace> places;
  int end = 0;
  for (const llm::PromptPiece& piece : pipeline.prompts().first_turn(question, 2, "")) {
    const int rows = piece.image < 0 ? static_cast<int>(piece.ids.size())
                                     : pipeline.config().vision->image_rows();
    if (piece.image >= 0) places.push_back({end, rows});
    end += rows;
  }
  ASSERT_EQ(places.size(), 2U);
  constexpr int kTokens = 3;
  std::vector<int> watches;
  for (const PicturePlace& place : places) {
    const int behind = place.position + place.rows;
    watches.push_back(pipeline.probe()->begin({0, 0, behind, behind, 1}));
  }
  watches.push_back(pipeline.probe()->begin({0, 0, end - 1, end - 1, kTokens}));
  conversation.ask(question, scenes({"house-tree-sun.png", "moon-sun.jpg"}), at_most(kTokens));
  ASSERT_EQ(conversation.sequence(), 0);
  run_to_end(pipeline, {&conversation});
  ASSERT_EQ(conversation.answer().finish, llm::FinishReason::kMaxTokens);
  std::vector<kernels::AttentionRecord> behind;
  for (size_t i = 0; i < places.size(); ++i) behind.push_back(pipeline.probe()->end(watches[i]));
  const kernels::AttentionRecord answer = pipeline.probe()->end(watches.back());
  ASSERT_EQ(answer.rows, kTokens);

  const Gaze& gaze = conversation.answer().gaze;
  // White space around the answer is no part of it; these models' first token is no such.
  const auto expected = expected_gaze(answer, behind, places);
  ASSERT_EQ(gaze.answer.size(), 2U);
  double total = 0;
  for (size_t p = 0; p < 2; ++p) {
    ASSERT_EQ(gaze.answer[p].size(), expected[p].size());
    for (size_t i = 0; i < expected[p].size(); ++i) {
      EXPECT_NEAR(gaze.answer[p][i], expected[p][i], 1e-5) << p << " " << i;
    }
    total += sum_of(gaze.answer[p]);
  }
  EXPECT_NEAR(total, 1, 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Models, GazeOf,
                         testing::Values(std::pair("square", "patch"),
                                         std::pair("pad", "cls_patch")));

TEST(Gaze, InABatchIsWhatItIsAlone) {
  const std::vector<std::string> names = {"house-tree-sun.png", "moon-sun.jpg",
                                          "heart-boat-house.png"};
  const std::string prompt = "Describe the picture.";
  Pipeline pipeline(source_path("assets/demo"), probing(3));
  std::vector<std::unique_ptr<Conversation>> together;
  std::vector<Conversation*> all;
  for (const std::string& name : names) {
    all.push_back(together.emplace_back(std::make_unique<Conversation>(pipeline)).get());
    all.back()->ask(prompt, scenes({name}), {});
  }
  run_to_end(pipeline, all);
  for (size_t i = 0; i < names.size(); ++i) {
    Pipeline single(source_path("assets/demo"), probing(1));
    Conversation alone(single);
    alone.ask(prompt, scenes({names[i]}), {});
    run_to_end(single, {&alone});
    const Gaze& expected = alone.answer().gaze;
    const Gaze& gaze = all[i]->answer().gaze;
    EXPECT_EQ(all[i]->answer().text, alone.answer().text);
    EXPECT_EQ(gaze.answer, expected.answer);
    ASSERT_EQ(gaze.words.size(), expected.words.size());
    for (size_t w = 0; w < gaze.words.size(); ++w) {
      EXPECT_EQ(gaze.words[w].word, expected.words[w].word);
      EXPECT_EQ(gaze.words[w].pictures, expected.words[w].pictures);
    }
  }
}

// A thing of a scene: its word, and the box that it is drawn in, in fractions of the picture.
struct Thing {
  const char* scene;
  const char* word;
  Point from;
  Point to;
};

TEST(Gaze, OfAWordPeaksWhereTheThingIsDrawn) {
  const std::vector<Thing> things = {
      {"house-tree-sun.png", "house", {0.14, 0.41}, {0.46, 0.88}},
      {"house-tree-sun.png", "tree", {0.54, 0.40}, {0.86, 0.88}},
      {"house-tree-sun.png", "sun", {0.40, 0.02}, {0.70, 0.34}},
      {"heart-boat-house.png", "heart", {0.18, 0.16}, {0.44, 0.48}},
      {"heart-boat-house.png", "boat", {0.54, 0.34}, {0.90, 0.80}},
      {"heart-boat-house.png", "house", {0.04, 0.68}, {0.28, 1.0}},
      {"moon-sun.jpg", "moon", {0.12, 0.28}, {0.52, 0.70}},
      {"moon-sun.jpg", "sun", {0.18, 0.70}, {0.50, 1.0}},
  };
  const TemporaryFolder folder;
  for (const Thing& thing : things) {
    const std::string name = std::string(thing.scene) + " " + thing.word;
    const fs::path map = folder / (name + ".png");
    const std::string picture = source_path("assets/scenes").string() + "/" + thing.scene;
    const Finished run = run_ocelli("ask '" + picture + "' 'Describe the picture.' --heatmap '" +
                                    map.string() + "' --heatmap-words");
    ASSERT_EQ(run.code, 0) << run.err;
    const std::string end = std::string("-") + thing.word + ".png";
    int found = 0;
    for (const auto& entry : fs::directory_iterator(folder.path())) {
      const std::string file = entry.path().filename().string();
      if (!file.starts_with(name + ".") || !file.ends_with(end)) continue;
      const Point peak = hottest(vision::read_image(entry.path().string()));
      EXPECT_TRUE(peak.x >= thing.from.x && peak.x <= thing.to.x && peak.y >= thing.from.y &&
                  peak.y <= thing.to.y)
          << file << ": " << peak.x << ", " << peak.y;
      ++found;
    }
    EXPECT_EQ(found, 1) << name << ": " << run.out;
  }
}

}  // namespace
}  // namespace ocelli::app
