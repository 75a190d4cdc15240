#include "kernels/checkpoint.h"

#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <string>

#include "host/mapped_file.h"
#include "tests/host/expect_error.h"
#include "tests/host/temporary_directory.h"
#include "tests/kernels/safetensors_builder.h"

namespace ocelli::kernels {
namespace {

namespace fs = std::filesystem;

// A file of f32 tensors of shape [1] with these names, each holding 1.0.
std::string ones(const std::vector<std::string>& names) {
  SafetensorsBuilder builder;
  for (const std::string& name : names) builder.add(name, "F32", {1}, bytes_of<float>({1.0F}));
  return builder.build();
}

std::vector<std::string> names(const Checkpoint& checkpoint) {
  std::vector<std::string> out;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    EXPECT_EQ(name, tensor.name);
    out.push_back(name);
  }
  return out;
}

std::string open_error(const fs::path& path) {
  return error_of([&] { Checkpoint::open(path); });
}

using Names = std::vector<std::string>;

class CheckpointTest : public testing::Test {
 protected:
  // The path of a file of the test's directory as messages show it.
  std::string at(const std::string& name) const { return (directory_.path() / name).string(); }
  // Writes the index with this weight_map, in JSON.
  fs::path write_index(const std::string& weight_map) const {
    return directory_.write("model.safetensors.index.json",
                            R"({"metadata":{"total_size":8},"weight_map":)" + weight_map + "}");
  }
  Checkpoint open() const { return Checkpoint::open(directory_.path()); }
  std::string error() const { return open_error(directory_.path()); }

  TemporaryDirectory directory_;
};

TEST_F(CheckpointTest, OpensAFileAndItsDirectory) {
  const std::string file = SafetensorsBuilder()
                               .entry(R"("__metadata__":{"format":"pt"})")
                               .add("w", "F32", {2}, bytes_of<float>({0.5F, 2.0F}))
                               .build();
  const fs::path path = directory_.write("model.safetensors", file);
  for (const fs::path& given : {path, directory_.path()}) {
    const Checkpoint checkpoint = Checkpoint::open(given);
    EXPECT_EQ(checkpoint.path(), given);
    EXPECT_EQ(checkpoint.files(), (std::vector<fs::path>{path}));
    EXPECT_EQ(checkpoint.metadata().at("format"), "pt");
    const HostTensor& tensor = checkpoint.tensors().at("w");
    EXPECT_EQ(reinterpret_cast<const float*>(tensor.data)[1], 2.0F);
  }
}

TEST_F(CheckpointTest, NamesStayValidWhenItMoves) {
  directory_.write("model.safetensors", ones({"w"}));
  Checkpoint first = open();
  const Checkpoint second = std::move(first);
  EXPECT_EQ(*reinterpret_cast<const float*>(second.tensors().at("w").data), 1.0F);
}

TEST_F(CheckpointTest, OpensShards) {
  directory_.write("a.safetensors", SafetensorsBuilder()
                                        .entry(R"("__metadata__":{"k":"first","only":"a"})")
                                        .add("w", "F32", {1}, bytes_of<float>({1.0F}))
                                        .add("x", "F32", {1}, bytes_of<float>({2.0F}))
                                        .build());
  directory_.write("b.safetensors", SafetensorsBuilder()
                                        .entry(R"("__metadata__":{"k":"second"})")
                                        .add("y", "F32", {1}, bytes_of<float>({3.0F}))
                                        .build());
  const fs::path index =
      write_index(R"({"y":"b.safetensors","w":"a.safetensors","x":"a.safetensors"})");
  for (const fs::path& given : {index, directory_.path()}) {
    const Checkpoint checkpoint = Checkpoint::open(given);
    EXPECT_EQ(names(checkpoint), (Names{"w", "x", "y"}));
    EXPECT_EQ(checkpoint.files().size(), 2U);
    EXPECT_EQ(*reinterpret_cast<const float*>(checkpoint.tensors().at("y").data), 3.0F);
    EXPECT_EQ(checkpoint.metadata(),
              (std::map<std::string, std::string>{{"k", "second"}, {"only", "a"}}));
  }
}

TEST_F(CheckpointTest, TakesTensorsOfAShardThatTheIndexDoesNotName) {
  directory_.write("a.safetensors", ones({"w", "extra"}));
  write_index(R"({"w":"a.safetensors"})");
  EXPECT_EQ(names(open()), (Names{"extra", "w"}));
}

TEST_F(CheckpointTest, PrefersTheSingleFile) {
  directory_.write("model.safetensors", ones({"single"}));
  directory_.write("a.safetensors", ones({"w"}));
  write_index(R"({"w":"a.safetensors"})");
  EXPECT_EQ(names(open()), (Names{"single"}));
}

TEST_F(CheckpointTest, RefusesShardsOutsideItsDirectory) {
  directory_.write("a.safetensors", ones({"w"}));
  fs::create_directory(directory_.path() / "sub");
  fs::copy_file(directory_.path() / "a.safetensors", directory_.path() / "sub/a.safetensors");
  const std::string above = "../" + directory_.path().filename().string() + "/a.safetensors";
  for (const std::string& shard : Names{above, at("a.safetensors"), "sub/a.safetensors",
                                        "./a.safetensors", "", ".", "..", "sub\\\\a", "a\\n"}) {
    write_index(R"({"w":")" + shard + "\"}");
    EXPECT_TRUE(holds(error(), "is not the name of a file beside it")) << shard;
  }
}

TEST_F(CheckpointTest, RefusesShardsThatDoNotHoldWhatTheIndexSays) {
  directory_.write("a.safetensors", ones({"w"}));
  directory_.write("b.safetensors", ones({"x"}));
  write_index(R"({"w":"a.safetensors","x":"b.safetensors","y":"b.safetensors"})");
  EXPECT_EQ(error(), at("b.safetensors") + ": has no tensor \"y\", which " +
                         at("model.safetensors.index.json") + " says it has");
  write_index(R"({"w":"b.safetensors","x":"a.safetensors"})");  // there, but the other way round
  EXPECT_TRUE(holds(error(), at("a.safetensors") + ": has no tensor \"x\""));
  write_index(R"({"w":"a.safetensors","x":"c.safetensors","y":"c.safetensors"})");
  EXPECT_TRUE(holds(error(), at("c.safetensors") + ": is missing"));
}

TEST_F(CheckpointTest, RefusesOneNameInTwoShards) {
  directory_.write("a.safetensors", ones({"w"}));
  directory_.write("b.safetensors", ones({"w", "x"}));
  write_index(R"({"w":"a.safetensors","x":"b.safetensors"})");
  EXPECT_EQ(error(), at("b.safetensors") + ": the tensor \"w\" is in another shard too");
}

TEST_F(CheckpointTest, RefusesBrokenIndexes) {
  directory_.write("a.safetensors", ones({"w"}));
  const std::string index = at("model.safetensors.index.json");
  write_index("{}");
  EXPECT_EQ(error(), index + ": its weight_map names no tensors");
  write_index(R"({"w":"a.safetensors","w":"a.safetensors"})");
  EXPECT_TRUE(holds(error(), index + ": the key \"w\" appears twice"));
  write_index(R"({"w":1})");
  EXPECT_EQ(error(), index + ": weight_map: w is 1, wanted a string");
  write_index("[]");
  EXPECT_TRUE(holds(error(), "weight_map: is an array, wanted an object"));
  write_index("{");
  EXPECT_TRUE(holds(error(), "is not valid JSON"));
  directory_.write("model.safetensors.index.json", "{}");
  EXPECT_TRUE(holds(error(), "names no tensors"));
}

TEST_F(CheckpointTest, SaysWhyThereIsNoModel) {
  EXPECT_EQ(error(), directory_.path().string() +
                         ": holds neither model.safetensors nor model.safetensors.index.json");
  EXPECT_TRUE(holds(open_error(directory_.path() / "none"), "No such file"));
  const fs::path text = directory_.write("notes.txt", "a text that is no model");
  EXPECT_TRUE(holds(open_error(text), "notes.txt: is not a safetensors file"));
}

TEST_F(CheckpointTest, SaysHowToConvertPickles) {
  for (const char* name : {"pytorch_model.bin.index.json", "pytorch_model.bin"}) {
    directory_.write(name, "PK\x03\x04");
    EXPECT_TRUE(holds(error(), at(name) + ": is a PyTorch pickle"));
    EXPECT_TRUE(holds(error(), "convert it with: python3 -c 'import"));
  }
  EXPECT_TRUE(holds(open_error(directory_.write("old.pt", "\x80\x02\x8A\x0A")), "PyTorch pickle"));
  directory_.write("model.safetensors", "PK\x03\x04 and more");
  EXPECT_TRUE(holds(error(), "PyTorch pickle"));
}

TEST_F(CheckpointTest, RecognisesAGitLfsPointer) {
  directory_.write("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid ...");
  EXPECT_TRUE(holds(error(), "is a Git LFS pointer, not the file itself"));
}

TEST_F(CheckpointTest, AlignsWhatTheFileMisaligns) {
  for (size_t remainder = 0; remainder < 8; ++remainder) {
    const fs::path path = directory_.write(
        "model.safetensors", SafetensorsBuilder()
                                 .add("odd", "U8", {1}, "a")
                                 .add("half", "F16", {2}, bytes_of<uint16_t>({7, 8}))
                                 .add("float", "F32", {2}, bytes_of<float>({0.5F, 1.5F}))
                                 .add("long", "I64", {1}, bytes_of<int64_t>({-3}))
                                 .build(remainder));
    const Checkpoint checkpoint = Checkpoint::open(path);
    for (const auto& [name, tensor] : checkpoint.tensors()) {
      EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data) % bytes_per_element(tensor.dtype), 0U)
          << name << remainder;
    }
    const auto& tensors = checkpoint.tensors();
    EXPECT_EQ(tensors.at("odd").data[0], std::byte{'a'});
    EXPECT_EQ(reinterpret_cast<const uint16_t*>(tensors.at("half").data)[1], 8);
    EXPECT_EQ(reinterpret_cast<const float*>(tensors.at("float").data)[1], 1.5F);
    EXPECT_EQ(*reinterpret_cast<const int64_t*>(tensors.at("long").data), -3);
  }
}

// A reader of another format has mapped a file and found its tensors.
TEST_F(CheckpointTest, IsMadeOfAnotherFormatsTensors) {
  const std::string floats = bytes_of<float>({0.5F, -1.5F});
  auto file = std::make_unique<host::MappedFile>(
      directory_.write("other.bin", floats + "abcd?" + bytes_of<float>({2.0F, 4.0F})));
  const std::byte* data = file->bytes().data();
  const HostTensor plain = {.name = "f", .dtype = DType::kF32, .shape = {2}, .data = data};
  const HostTensor quantised = {.name = "q",
                                .dtype = DType::kI8,
                                .shape = {1, 4},
                                .data = data + 8,
                                .scales = reinterpret_cast<const float*>(data + 13),
                                .group = 2};
  const Checkpoint checkpoint(std::move(file), {quantised, plain});
  EXPECT_EQ(names(checkpoint), (Names{"f", "q"}));
  EXPECT_EQ(checkpoint.path(), directory_.path() / "other.bin");
  EXPECT_EQ(checkpoint.files(), (std::vector<fs::path>{checkpoint.path()}));
  EXPECT_EQ(checkpoint.tensors().at("f").data, data);  // aligned: not copied
  const HostTensor& q = checkpoint.tensors().at("q");
  EXPECT_EQ(q.data, data + 8);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(q.scales) % alignof(float), 0U);
  EXPECT_EQ(q.scales[0], 2.0F);
  EXPECT_EQ(q.scales[1], 4.0F);
  EXPECT_EQ(q.group, 2);
}

TEST_F(CheckpointTest, RenamesPrefixes) {
  directory_.write("model.safetensors", ones({"model.a", "model.b", "modem", "head"}));
  Checkpoint checkpoint = open();
  checkpoint.rename_prefix("model.", "language_model.model.");
  EXPECT_EQ(names(checkpoint),
            (Names{"head", "language_model.model.a", "language_model.model.b", "modem"}));
  checkpoint.rename_prefix("absent.", "x.");
  checkpoint.rename_prefix("", "all.");
  EXPECT_EQ(names(checkpoint).front(), "all.head");
  EXPECT_EQ(checkpoint.tensors().size(), 4U);
}

TEST_F(CheckpointTest, RefusesToRenameTwoTensorsAlike) {
  directory_.write("model.safetensors", ones({"a.w", "b.w"}));
  Checkpoint checkpoint = open();
  EXPECT_EQ(error_of([&] { checkpoint.rename_prefix("a.", "b."); }),
            directory_.path().string() + ": two tensors would share the name \"b.w\"");
  EXPECT_EQ(names(checkpoint), (Names{"a.w", "b.w"}));
}

TEST_F(CheckpointTest, FindsNaNAndInfinity) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const auto finite_error = [&](const SafetensorsBuilder& builder) {
    const fs::path path = directory_.write("model.safetensors", builder.build());
    return error_of([&] { Checkpoint::open(path).require_finite(); });
  };
  EXPECT_EQ(finite_error(SafetensorsBuilder()
                             .add("a", "F32", {4}, bytes_of<float>({kNan, 1, -kInfinity, 2}))
                             .add("b", "F32", {1}, bytes_of<float>({1}))),
            at("model.safetensors") +
                ": NaN or infinity in the weights of \"a\" (2 of 4 values); the files are damaged");
  EXPECT_TRUE(
      holds(finite_error(SafetensorsBuilder()
                             .add("h", "F16", {3}, bytes_of<uint16_t>({0x7C00, 0xFE01, 0x7BFF}))
                             .add("t", "BF16", {3}, bytes_of<uint16_t>({0xFF80, 0x7F7F, 0x7C00}))),
            "\"h\" (2 of 3 values), \"t\" (1 of 3 values);"));
  SafetensorsBuilder many;
  for (int i = 0; i < 8; ++i) many.add(fmt::format("n{}", i), "F32", {1}, bytes_of<float>({kNan}));
  EXPECT_TRUE(holds(finite_error(many), "\"n4\" (1 of 1 values) and 3 more;"));
}

TEST_F(CheckpointTest, CountsNonFiniteValuesOfLargeTensors) {
  constexpr size_t kElements = 150'001;
  const std::string all = bytes_of(std::vector<uint16_t>(kElements, 0x7C00));
  std::vector<uint16_t> last(kElements, 0x3C00);
  last.back() = 0x7E00;
  const fs::path path =
      directory_.write("model.safetensors", SafetensorsBuilder()
                                                .add("all", "F16", {kElements}, all)
                                                .add("last", "F16", {kElements}, bytes_of(last))
                                                .build());
  EXPECT_TRUE(holds(error_of([&] { Checkpoint::open(path).require_finite(); }),
                    "\"all\" (150001 of 150001 values), \"last\" (1 of 150001 values);"));
}

TEST_F(CheckpointTest, TakesFiniteValuesAndIntegers) {
  const fs::path path = directory_.write(
      "model.safetensors",
      SafetensorsBuilder()
          .add("f", "F32", {2}, bytes_of<float>({std::numeric_limits<float>::max(), 1e-45F}))
          .add("h", "F16", {2}, bytes_of<uint16_t>({0x7BFF, 0xFBFF}))
          .add("t", "BF16", {2}, bytes_of<uint16_t>({0x7F7F, 0xFF7F}))
          .add("i", "I32", {1}, bytes_of<uint32_t>({0x7FC00000}))
          .build());
  EXPECT_NO_THROW(Checkpoint::open(path).require_finite());
}

TEST_F(CheckpointTest, LooksForNaNWhereItIsTold) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const fs::path path =
      directory_.write("model.safetensors", SafetensorsBuilder()
                                                .add("head", "F32", {1}, bytes_of<float>({kNan}))
                                                .add("w", "F32", {1, 1}, bytes_of<float>({1}))
                                                .add("w.bad", "F32", {1}, bytes_of<float>({kNan}))
                                                .build());
  const Checkpoint checkpoint = Checkpoint::open(path);
  TensorReader reader(checkpoint);
  reader.require("w", {1, 1});
  reader.require("gone", {1});
  EXPECT_NO_THROW(checkpoint.require_finite(reader.used()));
  reader.require("w.bad", {1});
  EXPECT_TRUE(holds(error_of([&] { checkpoint.require_finite(reader.used()); }),
                    "weights of \"w.bad\" (1 of 1 values);"));
  EXPECT_NO_THROW(checkpoint.require_finite(std::set<std::string>{}));
}

}  // namespace
}  // namespace ocelli::kernels
