#include "kernels/llama2c.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <map>
#include <string>

#include "kernels/ops.h"
#include "tests/host/expect_error.h"
#include "tests/host/temporary_directory.h"
#include "tests/kernels/llama2c_builder.h"

namespace ocelli::kernels {
namespace {

namespace fs = std::filesystem;
using enum Llama2cTensor;

constexpr int32_t kLowest = std::numeric_limits<int32_t>::min();
constexpr int32_t kHighest = std::numeric_limits<int32_t>::max();

struct Expected {
  Llama2cTensor tensor;
  int layer;
  std::vector<int64_t> shape;
};

// What a checkpoint of these fields holds, by Hugging Face's names; written by hand from them.
std::map<std::string, Expected> expected_tensors(const Llama2cFields& f, bool untied) {
  const int64_t dim = f.dim;
  const int64_t hidden = f.hidden_dim;
  const int64_t vocab = std::abs(f.vocab_size);
  const int64_t kv = dim / f.n_heads * f.n_kv_heads;
  std::map<std::string, Expected> all = {{"model.embed_tokens.weight", {kEmbed, 0, {vocab, dim}}},
                                         {"model.norm.weight", {kRmsFinal, 0, {dim}}}};
  if (untied) all.insert({"lm_head.weight", {kWcls, 0, {vocab, dim}}});
  for (int i = 0; i < f.n_layers; ++i) {
    const std::string scope = fmt::format("model.layers.{}.", i);
    all.insert({{scope + "input_layernorm.weight", {kRmsAtt, i, {dim}}},
                {scope + "post_attention_layernorm.weight", {kRmsFfn, i, {dim}}},
                {scope + "self_attn.q_proj.weight", {kWq, i, {dim, dim}}},
                {scope + "self_attn.k_proj.weight", {kWk, i, {kv, dim}}},
                {scope + "self_attn.v_proj.weight", {kWv, i, {kv, dim}}},
                {scope + "self_attn.o_proj.weight", {kWo, i, {dim, dim}}},
                {scope + "mlp.gate_proj.weight", {kW1, i, {hidden, dim}}},
                {scope + "mlp.down_proj.weight", {kW2, i, {dim, hidden}}},
                {scope + "mlp.up_proj.weight", {kW3, i, {hidden, dim}}}});
  }
  return all;
}

bool is_aligned(const void* address, size_t alignment) {
  return reinterpret_cast<uintptr_t>(address) % alignment == 0;
}

// Every value of a tensor is the one that the builder gave it.
void expect_values(const HostTensor& tensor, const Expected& expected, int group) {
  EXPECT_EQ(tensor.shape, expected.shape);
  if (group > 0 && tensor.shape.size() == 2) {
    ASSERT_EQ(tensor.dtype, DType::kI8);
    ASSERT_TRUE(tensor.quantised());
    ASSERT_EQ(tensor.group, group);
    ASSERT_TRUE(is_aligned(tensor.scales, alignof(float)));
    for (int64_t i = 0; i < tensor.elements(); ++i) {
      ASSERT_EQ(std::to_integer<uint8_t>(tensor.data[i]),
                static_cast<uint8_t>(llama2c_int8(expected.tensor, expected.layer, i)));
    }
    for (int64_t i = 0; i < tensor.elements() / group; ++i) {
      ASSERT_EQ(tensor.scales[i], llama2c_scale(expected.tensor, expected.layer, i));
    }
    return;
  }
  ASSERT_EQ(tensor.dtype, DType::kF32);
  EXPECT_FALSE(tensor.quantised());
  ASSERT_TRUE(is_aligned(tensor.data, alignof(float)));
  const auto* values = reinterpret_cast<const float*>(tensor.data);
  for (int64_t i = 0; i < tensor.elements(); ++i) {
    ASSERT_EQ(values[i], llama2c_float(expected.tensor, expected.layer, i));
  }
}

class Llama2cTest : public testing::Test {
 protected:
  Llama2cFile open(const std::string& file) const {
    return open_llama2c(directory_.write("model.bin", file));
  }
  // The error that opening `file` throws, without the path that it must begin with.
  std::string error(const std::string& file) const {
    const fs::path path = directory_.write("model.bin", file);
    const std::string message = error_of([&] { open_llama2c(path); });
    const std::string start = path.string() + ": ";
    EXPECT_TRUE(message.starts_with(start)) << message;
    return message.substr(std::min(start.size(), message.size()));
  }
  // The error of a file with this header, and the body of a good one behind it.
  std::string header_error(const Llama2cFields& fields) const {
    return error(llama2c_header(fields) + Llama2cBody({.version = fields.version}).build());
  }
  // Opens a file of these fields and compares everything it holds.
  void expect_reads(const Llama2cFields& fields, bool untied) const {
    const Llama2cFile file = open(llama2c_file(fields));
    const Llama2cHeader& header = file.header;
    EXPECT_EQ(header.version, fields.version);
    EXPECT_EQ(header.dim, fields.dim);
    EXPECT_EQ(header.hidden_dim, fields.hidden_dim);
    EXPECT_EQ(header.n_layers, fields.n_layers);
    EXPECT_EQ(header.n_heads, fields.n_heads);
    EXPECT_EQ(header.n_kv_heads, fields.n_kv_heads);
    EXPECT_EQ(header.vocab_size, std::abs(fields.vocab_size));
    EXPECT_EQ(header.seq_len, fields.seq_len);
    EXPECT_EQ(header.shared_classifier, !untied);
    EXPECT_EQ(header.group_size, fields.version == 2 ? fields.group_size : 0);
    const auto expected = expected_tensors(fields, untied);
    EXPECT_EQ(file.checkpoint.tensors().size(), expected.size());
    for (const auto& [name, what] : expected) {
      SCOPED_TRACE(fmt::format("version {}: {}", fields.version, name));
      ASSERT_TRUE(file.checkpoint.tensors().contains(name));
      const HostTensor& tensor = file.checkpoint.tensors().at(name);
      EXPECT_EQ(tensor.name, name);
      expect_values(tensor, what, header.group_size);
    }
    EXPECT_NO_THROW(file.checkpoint.require_finite());
  }

  TemporaryDirectory directory_;
};

TEST_F(Llama2cTest, ReadsVersion0) {
  expect_reads({.version = 0, .vocab_size = 5}, false);
  expect_reads({.version = 0, .vocab_size = -5}, true);
}

TEST_F(Llama2cTest, ReadsVersion1) {
  expect_reads({.version = 1, .shared_classifier = 1}, false);
  expect_reads({.version = 1, .shared_classifier = 0}, true);
}

TEST_F(Llama2cTest, ReadsVersion2) {
  expect_reads({.version = 2, .shared_classifier = 1}, false);
  expect_reads({.version = 2, .shared_classifier = 0, .group_size = 2}, true);
}

TEST_F(Llama2cTest, ReadsHeadsThatShareNothingOrEverything) {
  for (const int version : {0, 1, 2}) {
    expect_reads({.version = version, .n_kv_heads = 4}, false);
    expect_reads({.version = version, .n_layers = 1, .n_heads = 1, .n_kv_heads = 1}, false);
  }
}

// An odd number of int8 values leaves every scale behind it off its place.
TEST_F(Llama2cTest, AlignsScalesThatTheFileMisaligns) {
  for (const int group : {1, 3}) {
    expect_reads({.version = 2,
                  .dim = 6,
                  .hidden_dim = 9,
                  .n_heads = 3,
                  .n_kv_heads = 1,
                  .vocab_size = 5,
                  .shared_classifier = 0,
                  .group_size = group},
                 true);
  }
}

TEST_F(Llama2cTest, KnowsItsFile) {
  const fs::path path = directory_.write("model.bin", llama2c_file({.version = 2}));
  const Llama2cFile file = open_llama2c(path);
  EXPECT_EQ(file.checkpoint.path(), path);
  EXPECT_EQ(file.checkpoint.files(), (std::vector<fs::path>{path}));
  EXPECT_TRUE(file.checkpoint.metadata().empty());
}

TEST_F(Llama2cTest, GivesQuantisedMatricesButNoQuantisedVectors) {
  const Llama2cFile file = open(llama2c_file({.version = 2}));
  TensorReader reader(file.checkpoint);
  LinearSource source;
  reader.require_matrix("model.layers.1.self_attn.k_proj.weight", 4, 8, source);
  ASSERT_EQ(source.weights.size(), 1U);
  EXPECT_TRUE(source.biases.empty());
  EXPECT_EQ(source.weights[0].group, 4);
  EXPECT_TRUE(reader.require("model.embed_tokens.weight", {5, 8}).quantised());
  EXPECT_NE(reader.require("model.norm.weight", {8}).data, nullptr);
  EXPECT_NO_THROW(reader.finish());
}

TEST_F(Llama2cTest, FindsNaNInScales) {
  std::string file = llama2c_file({.version = 2});
  const std::string nan = bytes_of<float>({std::numeric_limits<float>::quiet_NaN()});
  file.replace(file.size() - nan.size(), nan.size(), nan);  // the last scale of the last w3
  EXPECT_TRUE(holds(error_of([&] { open(file).checkpoint.require_finite(); }),
                    "weights of \"model.layers.1.mlp.up_proj.weight\" (1 of 24 scales);"));
}

TEST_F(Llama2cTest, RefusesEveryTruncation) {
  for (const int version : {0, 1, 2}) {
    const Llama2cFields fields = {.version = version,
                                  .dim = 4,
                                  .hidden_dim = 4,
                                  .n_layers = 1,
                                  .n_heads = 2,
                                  .n_kv_heads = 1,
                                  .vocab_size = 3,
                                  .seq_len = 2};
    const std::string file = llama2c_file(fields);
    const fs::path path = directory_.write("model.bin", file);
    const size_t header = version == 0 ? 28 : 256;
    for (size_t size = file.size() - 1; size > 0; --size) {
      fs::resize_file(path, size);
      std::string expected = fmt::format("is truncated: {} bytes, its header ", size);
      if (size >= header) {
        expected += fmt::format("asks for {}", file.size());
      } else if (version > 0 && size >= 4) {
        expected += "alone takes 256";
      } else {
        expected = fmt::format(
            "does not look like a llama2.c file: {} bytes, a header alone takes 28", size);
      }
      EXPECT_EQ(error_of([&] { open_llama2c(path); }), path.string() + ": " + expected);
    }
    EXPECT_EQ(error(file + "!"),
              fmt::format("has 1 bytes more than the {} its header asks for", file.size()));
    EXPECT_EQ(error(file + std::string(1000, '\0')),
              fmt::format("has 1000 bytes more than the {} its header asks for", file.size()));
  }
  EXPECT_EQ(error(""), "is empty");
}

// The dims are those of another model: the sizes say so.
TEST_F(Llama2cTest, RefusesDimsThatDoNotMultiplyOut) {
  for (const int version : {0, 1, 2}) {
    EXPECT_TRUE(holds(header_error({.version = version, .hidden_dim = 16}), "is truncated: "));
    EXPECT_TRUE(holds(header_error({.version = version, .n_layers = 1}), "bytes more than the "));
    EXPECT_TRUE(holds(header_error({.version = version, .vocab_size = 6}), "is truncated: "));
    EXPECT_TRUE(holds(header_error({.version = version, .n_kv_heads = 1}), "bytes more than"));
  }
  EXPECT_TRUE(holds(header_error({.version = 0, .seq_len = 4}), "is truncated: "));
  EXPECT_TRUE(holds(header_error({.version = 0, .vocab_size = -5}), "is truncated: "));
  EXPECT_TRUE(holds(header_error({.version = 1, .shared_classifier = 0}), "is truncated: "));
  EXPECT_TRUE(holds(header_error({.version = 2, .group_size = 2}), "is truncated: "));
}

struct Wrong {
  const char* name;
  int32_t Llama2cFields::*field;
  int32_t largest;
};

TEST_F(Llama2cTest, RefusesNumbersOutsideTheirRange) {
  const std::vector<Wrong> fields = {{"dim", &Llama2cFields::dim, 131072},
                                     {"hidden_dim", &Llama2cFields::hidden_dim, 1048576},
                                     {"n_layers", &Llama2cFields::n_layers, 1024},
                                     {"n_heads", &Llama2cFields::n_heads, 131072},
                                     {"n_kv_heads", &Llama2cFields::n_kv_heads, 131072},
                                     {"vocab_size", &Llama2cFields::vocab_size, 16777216},
                                     {"seq_len", &Llama2cFields::seq_len, 16777216}};
  for (const int version : {0, 1, 2}) {
    for (const Wrong& wrong : fields) {
      for (const int32_t value : {0, -1, kLowest, kHighest, wrong.largest + 1}) {
        const bool is_flag = version == 0 && std::string(wrong.name) == "vocab_size";
        if (is_flag && value == -1) continue;
        Llama2cFields broken = {.version = version};
        broken.*wrong.field = value;
        EXPECT_EQ(header_error(broken),
                  fmt::format("its {} is {}, wanted 1 to {}", wrong.name, value, wrong.largest))
            << version;
      }
    }
  }
}

// The sums of the largest dims, in full.
TEST_F(Llama2cTest, AddsUpTheLargestDims) {
  Llama2cFields fields = {.dim = 131072,
                          .hidden_dim = 1048576,
                          .n_layers = 1024,
                          .n_heads = 1,
                          .n_kv_heads = 1,
                          .vocab_size = -16777216,
                          .seq_len = 16777216,
                          .shared_classifier = 0,
                          .group_size = 1};
  const auto size = [&](int version) {
    fields.version = version;
    if (version > 0) fields.vocab_size = 16777216;
    return header_error(fields);
  };
  EXPECT_TRUE(holds(size(0), "its header asks for 1996714190307356")) << size(0);
  EXPECT_TRUE(holds(size(1), "its header asks for 1987918097285376")) << size(1);
  EXPECT_TRUE(holds(size(2), "its header asks for 2484897353040128")) << size(2);
}

TEST_F(Llama2cTest, RefusesOtherVersions) {
  for (const int32_t version : {3, -1, 256, kLowest, kHighest}) {
    EXPECT_EQ(
        header_error({.version = version}),
        fmt::format("is a llama2.c file of version {}; versions 1 and 2 are read, and version "
                    "0, which does not begin with the magic number 0x616b3432",
                    version));
  }
  std::string zero = llama2c_file({.version = 1});
  zero[4] = 0;
  EXPECT_TRUE(holds(error(zero), "is a llama2.c file of version 0; versions 1 and 2 are read"));
}

TEST_F(Llama2cTest, RefusesHeadsThatDoNotMultiplyOut) {
  for (const int version : {0, 1, 2}) {
    EXPECT_EQ(header_error({.version = version, .n_heads = 3}),
              "its dim 8 is not a multiple of its n_heads 3");
    EXPECT_EQ(header_error({.version = version, .n_heads = 16}),
              "its dim 8 is not a multiple of its n_heads 16");
    EXPECT_EQ(header_error({.version = version, .n_kv_heads = 3}),
              "its n_heads 4 is not a multiple of its n_kv_heads 3");
    EXPECT_EQ(header_error({.version = version, .n_kv_heads = 8}),
              "its n_heads 4 is not a multiple of its n_kv_heads 8");
    EXPECT_EQ(header_error({.version = version, .dim = 12}),
              "its heads have 3 dimensions (dim 12, n_heads 4), which cannot be rotated in pairs");
  }
}

TEST_F(Llama2cTest, RefusesBadGroupSizes) {
  for (const int32_t group : {0, -1, kLowest}) {
    EXPECT_EQ(header_error({.version = 2, .group_size = group}),
              fmt::format("its group_size is {}, wanted at least 1", group));
  }
  for (const int32_t group : {3, 5, 8, 24, kHighest}) {  // 3 divides 12 alone, 8 divides 8 alone
    EXPECT_EQ(header_error({.version = 2, .group_size = group}),
              fmt::format("its group_size {} does not divide both its dim 8 and its hidden_dim 12",
                          group));
  }
}

TEST_F(Llama2cTest, RefusesClassifiersNeitherSharedNorNot) {
  for (const int version : {1, 2}) {
    for (const int shared : {2, 128, 255}) {
      EXPECT_EQ(header_error({.version = version, .shared_classifier = shared}),
                fmt::format("its shared_classifier is {}, wanted 0 or 1", shared));
    }
  }
}

TEST_F(Llama2cTest, RefusesFilesOfOtherFormats) {
  const std::string safetensors =
      SafetensorsBuilder().add("w", "F32", {1}, bytes_of<float>({1.0F})).build();
  const std::string gguf = "GGUF" + bytes_of<int32_t>({3, 201, 0, 25, 0, 20, 0}) + "general.arch";
  const std::string tokenizer = bytes_of<int32_t>({27, 0, 5}) + "<unk>" + bytes_of<int32_t>({0}) +
                                std::string(20, '\x06') + "<s>";
  for (const std::string& file :
       {safetensors, gguf, tokenizer, std::string("Once upon a time, in a land far away.\n"),
        "PK\x03\x04" + std::string(26, '\0') + "archive/data.pkl", std::string(4096, '\0'),
        std::string(4096, '\xFF'), std::string("version https://git-lfs.github.com/spec/v1\n")}) {
    EXPECT_TRUE(error(file).starts_with("does not look like a llama2.c file: its ")) << error(file);
  }
  EXPECT_EQ(error(gguf), "does not look like a llama2.c file: its dim would be 1179993927");
  EXPECT_EQ(error(tokenizer), "does not look like a llama2.c file: its hidden_dim would be 0");
  EXPECT_EQ(error("hello"), "does not look like a llama2.c file: 5 bytes, a header alone takes 28");
  EXPECT_TRUE(holds(error_of([&] { open_llama2c(directory_.path() / "none.bin"); }),
                    "none.bin: cannot be opened: No such file"));
}

}  // namespace
}  // namespace ocelli::kernels
