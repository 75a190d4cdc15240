// The packed file: what is written is read again, and what is wrong is refused by name.
#include "kernels/packed_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "kernels/checkpoint.h"
#include "kernels/packing.h"
#include "tests/host/expect_error.h"
#include "tests/host/temporary_directory.h"
#include "tests/kernels/ops_testing.h"

namespace ocelli::kernels {
namespace {

using nlohmann::json;

// A matrix in panels, one in rows, one of int4, a vector of an odd size, and a vocabulary.
std::string packed_text() {
  Random random(1);
  host::ThreadPool pool(1);
  const StoredInt8 rows(random_int8(random, 5, 24, 8));
  const auto matrix = store(random.matrix(20, 24), DType::kF16);
  const auto vector = store_vector(random.matrix(1, 7), DType::kBF16);
  LinearSource source;
  source.weights = {matrix->tensor()};
  source.weights[0].name = "panels";
  const PackedStack stack(source, {8}, pool);
  HostTensor in_rows = rows.tensor();
  in_rows.name = "rows";
  HostTensor bias = vector->tensor();
  bias.name = "bias";
  const HostTensor& panels = stack.weights()[0];
  source.weights[0].name = "int4";
  const PackedStack int4_stack(source, {.factor_group = 32}, pool);
  const HostTensor& int4 = int4_stack.weights()[0];

  PackedWriter writer;
  writer.set_metadata("config", "{\"model_type\": \"none\"}");
  writer.set_metadata("source", "{}");
  writer.set_metadata("tokenizer", "bpe");
  writer.plan("ocelli.tokenizer", "U8", {3}, 3);
  writer.plan_values(panels);
  writer.plan_scales(panels);
  writer.plan(bias);
  writer.plan_values(in_rows);
  writer.plan_scales(in_rows);
  writer.plan_values(int4);
  writer.plan_scales(int4);
  std::string text;
  writer.begin([&](std::string_view bytes) { text += bytes; });
  const auto put_scales = [&](const HostTensor& tensor) {
    writer.put(std::as_bytes(std::span(tensor.scales, tensor.scale_count())));
  };
  writer.put(std::as_bytes(std::span("abc", 3)));
  writer.put({panels.data, static_cast<size_t>(panels.bytes())});
  put_scales(panels);
  writer.put({bias.data, static_cast<size_t>(bias.bytes())});
  writer.put({in_rows.data, static_cast<size_t>(in_rows.bytes())});
  put_scales(in_rows);
  writer.put({int4.data, static_cast<size_t>(int4.bytes())});
  put_scales(int4);
  writer.finish();
  EXPECT_EQ(writer.file_bytes(), static_cast<int64_t>(text.size()));
  return text;
}

size_t header_bytes(const std::string& file) {
  uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof length);
  return length;
}

json header_of(const std::string& file) {
  return json::parse(file.substr(8, header_bytes(file)));
}

// The file with its header changed; its checksum is made right again.
template <typename Edit>
std::string edited(const std::string& file, Edit edit) {
  json header = header_of(file);
  edit(header);
  std::string text = header.dump();
  while ((8 + text.size()) % 64 != 0) text += ' ';
  std::string result(8, '\0');
  const uint64_t length = text.size();
  std::memcpy(result.data(), &length, sizeof length);
  result += text;
  const uint64_t sum = checksum_of(std::as_bytes(std::span(result)));
  result += file.substr(8 + header_bytes(file));
  const size_t sums = 8 + text.size() + header["ocelli.checksums"]["data_offsets"][0].get<size_t>();
  std::memcpy(result.data() + sums, &sum, sizeof sum);
  return result;
}

class PackedFile : public testing::Test {
 protected:
  Checkpoint open(const std::string& text) {
    return Checkpoint::open(folder_.write("model.ocelli", text));
  }
  void expect_refused(const std::string& text, const std::string& message) {
    const std::string error = error_of([&] { open(text); });
    EXPECT_TRUE(holds(error, "model.ocelli")) << message;
    EXPECT_TRUE(holds(error, message));
  }
  // Refused once "ocelli.int8", or another key, says this of a tensor.
  void expect_entry_refused(const std::string& name, const json& entry, const std::string& message,
                            const char* key = "ocelli.int8") {
    SCOPED_TRACE(entry.dump());
    expect_refused(edited(text_,
                          [&](json& header) {
                            std::string& list = header["__metadata__"][key].get_ref<std::string&>();
                            json entries = json::parse(list);
                            entries[name] = entry;
                            list = entries.dump();
                          }),
                   message);
  }

  TemporaryDirectory folder_;
  const std::string text_ = packed_text();
};

TEST_F(PackedFile, IsReadAsItWasWritten) {
  const Checkpoint checkpoint = open(text_);
  const PackedContents* packed = checkpoint.packed();
  ASSERT_NE(packed, nullptr);
  EXPECT_EQ(packed->config, "{\"model_type\": \"none\"}");
  EXPECT_EQ(packed->tokenizer_kind, "bpe");
  ASSERT_EQ(packed->tokenizer.size(), 3U);
  EXPECT_EQ(0, std::memcmp(packed->tokenizer.data(), "abc", 3));
  packed->require_intact("here");

  ASSERT_EQ(checkpoint.tensors().size(), 4U);
  const HostTensor& panels = checkpoint.tensors().at("panels");
  EXPECT_EQ(panels.layout, Layout::kPanels);
  EXPECT_EQ(panels.shape, (std::vector<int64_t>{20, 24}));
  EXPECT_EQ(panels.group, 8);
  const HostTensor& rows = checkpoint.tensors().at("rows");
  EXPECT_EQ(rows.layout, Layout::kRows);
  EXPECT_EQ(rows.group, 8);
  EXPECT_EQ(checkpoint.tensors().at("bias").dtype, DType::kBF16);

  Random random(1);
  const Int8Matrix expected_rows = random_int8(random, 5, 24, 8);
  EXPECT_EQ(0, std::memcmp(rows.data, expected_rows.values.data(), expected_rows.values.size()));
  const Matrix expected = random.matrix(20, 24);
  std::vector<float> found(20 * 24);
  convert_to_f32(panels, found.data());
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected.values[i], 1.01 / 254);
  const HostTensor& int4 = checkpoint.tensors().at("int4");
  EXPECT_EQ(int4.factor_group, 32);
  EXPECT_EQ(int4.group, 24);
  convert_to_f32(int4, found.data());
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected.values[i], 0.13);
}

TEST_F(PackedFile, IsTheSameFromTheSame) {
  EXPECT_EQ(packed_text(), text_);
}

TEST_F(PackedFile, PutsEveryTensorAtACacheLine) {
  const json header = header_of(text_);
  EXPECT_EQ((8 + header_bytes(text_)) % 64, 0U);
  size_t tensors = 0;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__" || name.starts_with("ocelli.padding.")) continue;
    ++tensors;
    EXPECT_EQ(entry["data_offsets"][0].get<size_t>() % 64, 0U) << name;
  }
  EXPECT_EQ(tensors, 9U);
}

TEST_F(PackedFile, OfAnotherFormatIsRefused) {
  for (const char* version : {"0", "1", "3", "999"}) {
    expect_refused(edited(text_, [&](json& h) { h["__metadata__"]["ocelli.format"] = version; }),
                   std::string("format ") + version);
  }
  expect_refused(edited(text_, [](json& h) { h["__metadata__"]["ocelli.format"] = "1a"; }),
                 "wanted a number");
}

TEST_F(PackedFile, CutOffAnywhereIsRefused) {
  for (size_t size = 1; size < text_.size(); size += 97) {
    EXPECT_THROW(open(text_.substr(0, size)), host::Error) << size;
  }
  EXPECT_THROW(open(text_ + "x"), host::Error);
}

TEST_F(PackedFile, MissingMetadataIsNamed) {
  for (const char* key :
       {"ocelli.config", "ocelli.int8", "ocelli.int4", "ocelli.tokenizer", "ocelli.source"}) {
    expect_refused(edited(text_, [&](json& header) { header["__metadata__"].erase(key); }), key);
  }
}

TEST_F(PackedFile, ADamagedHeaderIsFoundAtOnce) {
  std::string damaged = text_;
  const size_t at = damaged.find("none");
  damaged[at] = 'N';
  expect_refused(damaged, "checksum of its header");
}

TEST_F(PackedFile, DamagedBytesAreFoundByTheChecksums) {
  const json header = header_of(text_);
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__" || name == "ocelli.checksums") continue;
    std::string damaged = text_;
    damaged[8 + header_bytes(text_) + entry["data_offsets"][1].get<size_t>() - 1] ^= 0x10;
    const Checkpoint checkpoint = open(damaged);
    const std::string error = error_of([&] { checkpoint.packed()->require_intact("here"); });
    EXPECT_TRUE(holds(error, "\"" + name + "\"")) << name;
  }
}

TEST_F(PackedFile, ImpossibleShapesAreRefused) {
  const auto entry = [](const json& shape, const json& group) {
    return json{{"shape", shape}, {"group", group}};
  };
  for (const json& wrong :
       {json(5), json::object(), entry({20, 24}, 0), entry({20, 24}, -8), entry({20, 24}, 5),
        entry({20, 24}, 1 << 30), entry({20, 24}, 8.0), entry({480}, 8), entry({0, 24}, 8),
        entry({-20, 24}, 8), entry({20, 1LL << 40}, 8), entry({20, 1 << 20, 1 << 20}, 8),
        entry(json::array(), 8), entry("20, 24", 8), entry({20, "24"}, 8)}) {
    expect_entry_refused("panels", wrong, "no shape of a matrix");
  }
  // Sound by themselves, but other panels than are there.
  for (const json& wrong : {entry({40, 24}, 8), entry({20, 32}, 8), entry({20, 24}, 4)}) {
    expect_entry_refused("panels", wrong, "wanted u8");
  }
  expect_entry_refused("rows", entry({5, 48}, 8), "wanted i8");
  expect_entry_refused("rows", entry({5, 24}, 4), "wanted f32");
  expect_entry_refused("bias", entry({1, 7}, 7), "wanted i8");
  expect_entry_refused("nothing", entry({5, 24}, 4), "has no tensor \"nothing\"");
}

TEST_F(PackedFile, ImpossibleShapesOfInt4AreRefused) {
  const auto refuse = [&](const json& shape, const json& group, const std::string& message) {
    expect_entry_refused("int4", json{{"shape", shape}, {"group", group}}, message, "ocelli.int4");
  };
  for (const int group : {0, 1, 8, 24, 31, 96, 256, -32}) refuse({20, 24}, group, "32, 64 or 128");
  refuse({20, 1 << 18}, 32, "32, 64 or 128");
  refuse({0, 24}, 32, "32, 64 or 128");
  refuse({40, 24}, 32, "wanted u8");
  refuse({20, 32}, 32, "wanted u8");
  refuse({20, 600}, 64, "wanted u8");
  // Named by both, it is there for the first.
  expect_entry_refused("panels", {{"shape", {20, 24}}, {"group", 32}}, "has no tensor",
                       "ocelli.int4");
}

TEST_F(PackedFile, FactorsOutOfRangeAreFound) {
  const Checkpoint sound = open(text_);
  sound.require_finite();
  const HostTensor& int4 = sound.tensors().at("int4");
  const size_t at = text_.find(std::string(reinterpret_cast<const char*>(int4.data), int4.bytes()));
  ASSERT_NE(at, std::string::npos);
  for (const char factor : {'\x10', '\xF0', '\x7F', '\x80'}) {
    std::string damaged = text_;
    damaged[at + 3] = factor;
    const Checkpoint checkpoint = open(damaged);
    EXPECT_TRUE(holds(error_of([&] { checkpoint.require_finite(); }), "\"int4\" (1 of 20)"));
  }
}

TEST_F(PackedFile, MissingTensorsAreNamed) {
  const auto rename = [&](const std::string& from, const std::string& to) {
    return edited(text_, [&](json& header) {
      header[to] = header[from];
      header.erase(from);
    });
  };
  expect_refused(rename("panels.scales", "else"), "\"panels.scales\"");
  expect_refused(rename("ocelli.tokenizer", "else"), "\"ocelli.tokenizer\"");
}

TEST_F(PackedFile, MisalignedPanelsAreRefused) {
  // The vocabulary takes a byte of its padding: all but the panels themselves would still fit.
  expect_refused(edited(text_,
                        [](json& header) {
                          json& padding = header["ocelli.padding.0"];
                          json& panels = header["panels"];
                          json& scales = header["panels.scales"];
                          const int64_t moved = 4;
                          padding["shape"][0] = padding["shape"][0].get<int64_t>() - moved;
                          for (json* entry : {&panels, &scales}) {
                            for (json& offset : (*entry)["data_offsets"]) {
                              offset = offset.get<int64_t>() - moved;
                            }
                          }
                          padding["data_offsets"][1] = panels["data_offsets"][0];
                          // What follows the scales takes the bytes that became free.
                          json filler = {{"dtype", "U8"}, {"shape", {moved}}};
                          const int64_t end = scales["data_offsets"][1];
                          filler["data_offsets"] = {end, end + moved};
                          header["ocelli.padding.9"] = filler;
                          json& sums = header["ocelli.checksums"];
                          sums["shape"][0] = sums["shape"][0].get<int64_t>() + 1;
                          sums["data_offsets"][1] = sums["data_offsets"][1].get<int64_t>() + 8;
                        }) +
                     std::string(8, '\0'),
                 "does not begin at a multiple of 64");
}

TEST(Checksum, ChangesWithEveryByteAndTheLength) {
  std::string bytes(100, 'a');
  const auto sum = [&] { return checksum_of(std::as_bytes(std::span(bytes))); };
  const uint64_t whole = sum();
  for (char& c : bytes) {
    c = 'b';
    EXPECT_NE(sum(), whole);
    c = 'a';
  }
  bytes.push_back('\0');
  EXPECT_NE(sum(), whole);
  bytes.clear();
  EXPECT_NE(sum(), whole);
}

TEST(LooksLikeSafetensors, TellsItFromOtherModels) {
  const auto looks = [](const std::string& text) {
    return looks_like_safetensors(std::as_bytes(std::span(text)));
  };
  EXPECT_TRUE(looks(packed_text()));
  EXPECT_FALSE(looks(""));
  EXPECT_FALSE(looks("12345678{"));
  // llama2.c, version 0, with 123 layers
  EXPECT_FALSE(looks(std::string("\x40\x00\x00\x00\x80\x00\x00\x00{\x00\x00\x00\x04\x00", 14)));
}

}  // namespace
}  // namespace ocelli::kernels
