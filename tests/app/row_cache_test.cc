// Rows of pictures on disk: entries are whole or not taken, the folder keeps its size, and nothing
// that happens to it is more than a note.
#include "app/row_cache.h"

#include <bit>
#include <limits>
#include <nlohmann/json.hpp>
#include <thread>

#include "app/row_key.h"
#include "host/error.h"
#include "tests/app/command.h"

namespace ocelli::app {
namespace {

constexpr size_t kValues = 100;
constexpr int64_t kEntryBytes = kRowEntryHeader + kValues * sizeof(float);

RowKey key_of(int number) {
  return host::sha256("picture " + std::to_string(number));
}

// Values that differ in every bit somewhere, what is not a number among them.
std::vector<float> rows_of(int number) {
  std::vector<float> rows;
  for (uint32_t i = 0; i < kValues; ++i) {
    rows.push_back(std::bit_cast<float>((static_cast<uint32_t>(number) + i) * 2654435761U));
  }
  return rows;
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return std::ranges::equal(std::as_bytes(a), std::as_bytes(b));
}

bool holds(RowCache& cache, int number) {
  std::vector<float> rows(kValues, -1);
  if (!cache.find(key_of(number), rows)) return false;
  EXPECT_TRUE(same_bits(rows, rows_of(number))) << number;
  return true;
}

std::vector<fs::path> entries(const fs::path& folder) {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.path().extension() == ".rows") paths.push_back(entry.path());
  }
  return paths;
}

TEST(RowEntry, EveryChangedBitIsNoticed) {
  const std::vector<float> rows = rows_of(1);
  const RowEntryHeader header = make_row_entry_header(key_of(1), rows);
  std::vector<std::byte> entry(header.begin(), header.end());
  const auto bytes = std::as_bytes(std::span(rows));
  entry.insert(entry.end(), bytes.begin(), bytes.end());
  ASSERT_TRUE(row_entry_values(entry, key_of(1), kValues));
  EXPECT_FALSE(row_entry_values(entry, key_of(2), kValues));
  EXPECT_FALSE(row_entry_values(entry, key_of(1), kValues - 1));
  EXPECT_FALSE(row_entry_values(entry, key_of(1), std::numeric_limits<size_t>::max()));
  for (size_t cut : {size_t{0}, size_t{10}, kRowEntryHeader, entry.size() - 1}) {
    EXPECT_FALSE(row_entry_values(std::span(entry).first(cut), key_of(1), kValues)) << cut;
  }
  for (size_t bit = 0; bit < entry.size() * 8; ++bit) {
    const auto mask = static_cast<std::byte>(1 << bit % 8);
    entry[bit / 8] ^= mask;
    EXPECT_FALSE(row_entry_values(entry, key_of(1), kValues)) << bit;
    entry[bit / 8] ^= mask;
  }
}

TEST(RowCache, GivesBackTheSameBits) {
  const TemporaryFolder folder;
  RowCache cache({folder / "new" / "cache"});
  EXPECT_FALSE(holds(cache, 1));
  cache.store(key_of(1), rows_of(1));
  cache.store(key_of(2), rows_of(2));
  RowCache later({folder / "new" / "cache"});
  EXPECT_TRUE(holds(later, 1));
  EXPECT_TRUE(holds(later, 2));
  EXPECT_FALSE(holds(later, 3));
  EXPECT_NE(later.summary().find("2 of 3 pictures"), std::string::npos) << later.summary();
}

TEST(RowCache, WhatIsDamagedIsMadeAgain) {
  const TemporaryFolder folder;
  RowCache cache({folder.path()});
  cache.store(key_of(1), rows_of(1));
  const fs::path entry = entries(folder.path()).at(0);
  const std::string whole = read_file(entry);
  for (const std::string& bytes :
       {std::string(), whole.substr(0, 30), whole.substr(0, whole.size() - 1), whole + "x",
        whole.substr(0, 200) + "\x01" + whole.substr(201)}) {
    write_file(entry, bytes);
    EXPECT_FALSE(holds(cache, 1)) << bytes.size();
    cache.store(key_of(1), rows_of(1));
    EXPECT_TRUE(holds(cache, 1)) << bytes.size();
  }
}

TEST(RowCache, WhatWasNotUsedForLongestGoes) {
  const TemporaryFolder folder;
  constexpr int kMost = 5;
  RowCache cache({folder.path(), kMost * kEntryBytes});
  // What is not an entry is not the cache's to remove, whatever it looks like.
  write_file(folder / "notes.rows", std::string(10'000, 'x'));
  fs::create_directory(folder / "ab");
  write_file(folder / "ab" / "mine.rows", std::string(10'000, 'x'));
  const auto age = [&](int number, int hours) {
    const std::string name = host::hex(key_of(number));
    const fs::path path = folder.path() / name.substr(0, 2) / (name.substr(2) + ".rows");
    fs::last_write_time(path, fs::file_time_type::clock::now() - std::chrono::hours(hours));
  };
  for (int i = 0; i < kMost; ++i) {
    cache.store(key_of(i), rows_of(i));
    age(i, 10 - i);
  }
  EXPECT_TRUE(holds(cache, 0));  // is the youngest now
  cache.store(key_of(kMost), rows_of(kMost));
  EXPECT_TRUE(holds(cache, 0));
  EXPECT_TRUE(holds(cache, kMost));
  EXPECT_FALSE(holds(cache, 1));
  EXPECT_TRUE(holds(cache, 4));
  for (int i = 10; i < 40; ++i) {
    cache.store(key_of(i), rows_of(i));
    EXPECT_TRUE(holds(cache, i));
    const auto there = entries(folder.path());
    EXPECT_LE(there.size(), kMost + size_t{2}) << i;
  }
  EXPECT_TRUE(fs::exists(folder / "notes.rows"));
  EXPECT_TRUE(fs::exists(folder / "ab" / "mine.rows"));
}

TEST(RowCache, OldTemporariesGo) {
  const TemporaryFolder folder;
  RowCache cache({folder.path()});
  cache.store(key_of(1), rows_of(1));
  const std::string entry = entries(folder.path()).at(0).string();
  write_file(entry + ".1-0.tmp", "old");
  write_file(entry + ".2-0.tmp", "young");
  fs::last_write_time(entry + ".1-0.tmp", fs::file_time_type::clock::now() - std::chrono::hours(2));
  RowCache({folder.path()}).store(key_of(2), rows_of(2));
  EXPECT_FALSE(fs::exists(entry + ".1-0.tmp"));
  EXPECT_TRUE(fs::exists(entry + ".2-0.tmp"));
}

TEST(RowCache, AFolderThatCannotBeIsANote) {
  const TemporaryFolder folder;
  write_file(folder / "file", "x");
  RowCache cache({folder / "file"});
  testing::internal::CaptureStderr();
  cache.store(key_of(1), rows_of(1));
  cache.store(key_of(2), rows_of(2));
  const std::string notes = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(notes.begin(), notes.end(), '\n'), 1) << notes;
  EXPECT_NE(notes.find("goes on without"), std::string::npos) << notes;
  EXPECT_FALSE(holds(cache, 1));
  RowCache small({folder / "small", kEntryBytes - 1, true});
  small.store(key_of(1), rows_of(1));
  EXPECT_FALSE(holds(small, 1));
}

// As processes, each has a cache of its own; they store, read and make room in one folder.
TEST(RowCache, SeveralAtOnceDoNoHarm) {
  const TemporaryFolder folder;
  std::vector<std::thread> threads;
  std::vector<int> found(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      RowCache cache({folder.path(), 20 * kEntryBytes});
      for (int i = 0; i < 200; ++i) {
        const int number = (i * (t + 3)) % 16;
        std::vector<float> rows(kValues);
        if (cache.find(key_of(number), rows)) {
          EXPECT_TRUE(same_bits(rows, rows_of(number)));
          ++found[t];
        } else {
          cache.store(key_of(number), rows_of(number));
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(found[0] + found[1] + found[2] + found[3], 400);
  EXPECT_LE(entries(folder.path()).size(), 20U);
}

// The demo with one bit of one tensor changed.
fs::path demo_with(const TemporaryFolder& folder, const std::string& tensor) {
  const fs::path model = folder / ("changed " + tensor);
  fs::copy(source_path("assets/demo"), model);
  std::string bytes = read_file(model / "model.safetensors");
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  const auto json = nlohmann::json::parse(bytes.substr(sizeof header, header));
  bytes[sizeof header + header + json.at(tensor).at("data_offsets").at(0).get<size_t>()] ^= 1;
  write_file(model / "model.safetensors", bytes);
  return model;
}

TEST(RowKey, DependsOnAllThatChangesRowsAndOnNothingElse) {
  const TemporaryFolder folder;
  const OpenedModel demo = open_model(source_path("assets/demo"));
  PipelineOptions options;
  options.backend.isa = "scalar";
  const auto usual = tower_hash(demo, options);
  options.backend.threads = 1;
  options.sequences = 7;
  EXPECT_EQ(tower_hash(demo, options), usual);
  options.pack.emplace();
  EXPECT_NE(tower_hash(demo, options), usual);
  options.pack.reset();
  options.backend.name = "reference";
  EXPECT_NE(tower_hash(demo, options), usual);
  options.backend = {.name = "cpu", .isa = "llama2c"};
  EXPECT_NE(tower_hash(demo, options), usual);
  options.backend.isa = "scalar";
  const std::string seen =
      "vision_tower._vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight";
  EXPECT_NE(tower_hash(open_model(demo_with(folder, seen)), options), usual);
  const std::string said = "language_model.model.layers.0.mlp.fc1.weight";
  EXPECT_EQ(tower_hash(open_model(demo_with(folder, said)), options), usual);

  const vision::Image image = {2, 1, {1, 2, 3, 4, 5, 6}};
  const vision::Image turned = {1, 2, image.rgb};
  const vision::Image other = {2, 1, {1, 2, 3, 4, 5, 7}};
  EXPECT_EQ(row_key(usual, image), row_key(usual, image));
  EXPECT_NE(row_key(usual, image), row_key(usual, turned));
  EXPECT_NE(row_key(usual, image), row_key(usual, other));
  EXPECT_NE(row_key(usual, image), row_key(host::sha256("other"), image));
}

}  // namespace
}  // namespace ocelli::app
