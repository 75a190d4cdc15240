// `caption --heatmap`, as a user runs it: the captions are what they are without, and every picture
// that has one has its map.
#include "app/caption_maps.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <regex>

#include "tests/app/command.h"
#include "tests/app/photos.h"

namespace ocelli::app {
namespace {

std::string quoted(const fs::path& path) {
  return fmt::format("'{}'", path.string());
}

class Maps : public testing::Test {
 protected:
  Maps() { photos_ = write_photos(folder_ / "photos", 4); }

  Finished caption(const std::string& more) const {
    return run_ocelli("caption -q " + quoted(folder_ / "photos") + " -o " + quoted(table()) + " " +
                      more);
  }
  std::string to_maps() const { return "--heatmap " + quoted(folder_ / "maps"); }
  fs::path table() const { return folder_ / "captions.jsonl"; }
  fs::path map_of(const fs::path& photo) const {
    return folder_ / "maps" / (photo.filename().string() + ".png");
  }
  std::vector<std::string> maps() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::recursive_directory_iterator(folder_ / "maps")) {
      if (entry.is_regular_file()) names.push_back(entry.path().filename());
    }
    std::ranges::sort(names);
    return names;
  }

  TemporaryFolder folder_;
  std::vector<fs::path> photos_;
};

TEST_F(Maps, AreThoseOfAskAndChangeNoCaption) {
  ASSERT_EQ(caption("").code, 0);
  const std::string expected = without_times(read_file(table()));
  fs::remove(table());
  fs::remove(table().string() + ".journal");
  const Finished run = caption(to_maps() + " --batch 3");
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(without_times(read_file(table())), expected);
  ASSERT_EQ(maps().size(), photos_.size());
  for (const fs::path& photo : photos_) {
    const fs::path alone = folder_ / "alone.png";
    run_ocelli("ask -q " + quoted(photo) + " 'Describe the picture.' --heatmap " + quoted(alone));
    EXPECT_TRUE(read_file(map_of(photo)) == read_file(alone)) << photo;
  }
}

TEST_F(Maps, OfWordsStandBesideThem) {
  ASSERT_EQ(caption(to_maps() + " --heatmap-words").code, 0);
  std::istringstream lines(read_file(table()));
  size_t words = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto record = nlohmann::json::parse(line);
    const std::string photo = fs::path(record["path"].get<std::string>()).filename();
    const std::string text = record["caption"];
    const std::regex word("[A-Za-z]+");
    int number = 0;
    for (std::sregex_iterator at(text.begin(), text.end(), word), end; at != end; ++at) {
      const std::string name = fmt::format("{}.{:02}-{}.png", photo, ++number, at->str());
      EXPECT_TRUE(fs::exists(folder_ / "maps" / name)) << name;
      ++words;
    }
  }
  EXPECT_EQ(maps().size(), words + photos_.size());
}

TEST_F(Maps, ThatAreMissingAreMadeAndNoOthers) {
  write_file(folder_ / "photos/broken.jpg", "no picture");
  ASSERT_EQ(caption("").code, 0);
  // The journal has every caption: the maps are made all the same.
  ASSERT_EQ(caption(to_maps()).code, 0);
  ASSERT_EQ(maps().size(), photos_.size());
  const std::string table_before = without_times(read_file(table()));
  std::vector<std::string> before;
  for (const fs::path& photo : photos_) before.push_back(read_file(map_of(photo)));
  write_file(map_of(photos_[0]), "mine");
  fs::remove(map_of(photos_[1]));
  const Finished run = run_ocelli("caption " + quoted(folder_ / "photos") + " -o " +
                                  quoted(table()) + " " + to_maps());
  EXPECT_NE(run.err.find("3 were done before"), std::string::npos) << run.err;
  EXPECT_EQ(read_file(map_of(photos_[0])), "mine");
  for (size_t i = 1; i < photos_.size(); ++i) {
    EXPECT_TRUE(read_file(map_of(photos_[i])) == before[i]) << i;
  }
  EXPECT_EQ(without_times(read_file(table())), table_before);
}

TEST_F(Maps, PicturesOfOneContentHaveOneEach) {
  std::vector<fs::path> copies;
  for (const char* name : {"0-first.png", "x.png", "y.png", "z.png"}) {
    copies.push_back(folder_ / "photos" / name);
    fs::copy(photos_[2], copies.back());
  }
  for (const char* batch : {"1", "8"}) {
    fs::remove_all(folder_ / "maps");
    ASSERT_EQ(caption(to_maps() + " --heatmap-words --batch " + batch).code, 0);
    const std::string expected = read_file(map_of(photos_[2]));
    const auto words_of = [&](const fs::path& photo) {
      return std::ranges::count_if(maps(), [&](const std::string& name) {
        return name.starts_with(photo.filename().string() + ".");
      });
    };
    for (const fs::path& copy : copies) {
      EXPECT_TRUE(read_file(map_of(copy)) == expected) << copy << " of a batch of " << batch;
      EXPECT_EQ(words_of(copy), words_of(photos_[2])) << copy << " of a batch of " << batch;
    }
  }
}

TEST_F(Maps, AreNoPictures) {
  const std::string recursive = "-r --heatmap " + quoted(folder_ / "photos/maps");
  ASSERT_EQ(caption(recursive).code, 0);
  const std::string before = without_times(read_file(table()));
  ASSERT_EQ(caption(recursive).code, 0);
  EXPECT_EQ(without_times(read_file(table())), before);
  EXPECT_EQ(caption("--heatmap " + quoted(folder_ / "photos/")).code, 2);
  EXPECT_EQ(caption("--heatmap " + quoted(folder_.path())).code, 2);
  EXPECT_EQ(caption("--heatmap-words").code, 2);
}

TEST_F(Maps, APlaceThatCannotBeIsRefusedAtOnce) {
  write_file(folder_ / "maps", "a file");
  expect_failure(caption(to_maps()), "maps");
  EXPECT_FALSE(fs::exists(table()));
  fs::create_directory(folder_ / "other");
  fs::copy(photos_[0], folder_ / "other");
  const Finished run =
      run_ocelli("caption " + quoted(folder_ / "photos") + " " + quoted(folder_ / "other") +
                 " -o " + quoted(table()) + " --heatmap " + quoted(folder_ / "two"));
  expect_failure(run, "would be the map of");
}

}  // namespace
}  // namespace ocelli::app
