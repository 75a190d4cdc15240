// Matrices of bf16 in packed files: read as they were written, and refused by name when wrong.
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "kernels/packed_file.h"
#include "kernels/pair_packing.h"
#include "tests/host/expect_error.h"
#include "tests/kernels/ops_testing.h"

namespace ocelli::kernels {
namespace {

using nlohmann::json;

// A file in memory at a cache line, with a matrix "w" [21, 13] whose entry reads as `entry` says.
class File {
 public:
  explicit File(const char* entry = nullptr) : memory_(1 << 16) {
    Random random(1);
    host::ThreadPool pool(1);
    const auto stored = store(random.matrix(21, 13), DType::kF32);
    LinearSource source;
    source.weights = {stored->tensor()};
    source.weights[0].name = std::string("w");
    const PairStack stack(source, pool);
    const HostTensor& matrix = stack.weights()[0];
    values.resize(21 * 13);
    convert_to_f32(matrix, values.data());
    PackedWriter writer;
    for (const char* key : {"config", "source", "tokenizer"}) writer.set_metadata(key, "{}");
    writer.plan("ocelli.tokenizer", "U8", {3}, 3);
    writer.plan_pairs(matrix);
    if (entry) writer.set_metadata("bf16", entry);
    writer.begin([&](std::string_view bytes) {
      std::memcpy(memory_.data() + size_, bytes.data(), bytes.size());
      size_ += bytes.size();
    });
    writer.put(std::as_bytes(std::span("abc", 3)));
    writer.put({matrix.data, static_cast<size_t>(matrix.bytes())});
    writer.finish();
  }

  SafetensorsContents read() const {
    const std::span<const std::byte> file(memory_.data(), size_);
    SafetensorsContents contents = parse_safetensors(file, "file");
    take_packed(contents, file, "file");
    return contents;
  }

  std::vector<float> values;

 private:
  HostStorage memory_;
  size_t size_ = 0;
};

TEST(PackedPairs, AreReadAsTheyWereWritten) {
  const File file;
  const SafetensorsContents contents = file.read();
  ASSERT_EQ(contents.tensors.size(), 1U);
  const HostTensor& matrix = contents.tensors[0];
  EXPECT_EQ(matrix.name, "w");
  EXPECT_EQ(matrix.shape, (std::vector<int64_t>{21, 13}));
  EXPECT_TRUE(matrix.in_pairs());
  std::vector<float> found(21 * 13);
  convert_to_f32(matrix, found.data());
  EXPECT_EQ(found, file.values);
}

TEST(PackedPairs, ImpossibleShapesAreRefused) {
  for (const char* shape : {"[21]", "[]", "7", "[0, 13]", "[21, -1]", "[21, 13.5]",
                            "[2147483648, 2]", "[21, 268435456, 2]", "[[21], 13]", "null"}) {
    SCOPED_TRACE(shape);
    const std::string entry = fmt::format("{{\"w\": {}}}", shape);
    EXPECT_TRUE(holds(error_of([&] { File(entry.c_str()).read(); }), "\"w\""));
  }
  EXPECT_TRUE(
      holds(error_of([] { File("{\"w\": [21, 15]}").read(); }), "wanted bf16 [2, 8, 16, 2]"));
  EXPECT_TRUE(
      holds(error_of([] { File("{\"w\": [33, 13]}").read(); }), "wanted bf16 [3, 7, 16, 2]"));
}

TEST(PackedPairs, WhatIsNotThereIsNamed) {
  EXPECT_TRUE(
      holds(error_of([] { File("{\"other\": [21, 13]}").read(); }), "has no tensor \"other\""));
  EXPECT_TRUE(
      holds(error_of([] { File("{\"ocelli.checksums\": [21, 13]}").read(); }), "wanted bf16"));
  EXPECT_TRUE(holds(error_of([] { File("[]").read(); }), "is not an object"));
  EXPECT_TRUE(holds(error_of([] { File("{").read(); }), "ocelli.bf16"));
}

}  // namespace
}  // namespace ocelli::kernels
