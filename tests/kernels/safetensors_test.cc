#include "kernels/safetensors.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/host/expect_error.h"
#include "tests/kernels/safetensors_builder.h"

namespace ocelli::kernels {
namespace {

SafetensorsContents parse(const std::string& file) {
  return parse_safetensors(std::as_bytes(std::span(file)), "x");
}

std::string error_in(const std::string& file) {
  return error_of([&] { parse(file); });
}

// The error of a file whose header is `header` and whose data is `bytes` zeros.
std::string error_of_header(const std::string& header, size_t bytes = 0) {
  return error_in(raw_safetensors(header, std::string(bytes, '\0')));
}

// The error of one tensor "a" with this dtype, shape and data_offsets, before `bytes` of data.
std::string error_of_tensor(const std::string& dtype, const std::string& shape,
                            const std::string& offsets, size_t bytes) {
  return error_of_header(
      R"({"a":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}",
      bytes);
}

std::string entry(const std::string& name, int begin, int end) {
  return fmt::format(R"("{}":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}})", name,
                     end - begin, begin, end);
}

std::string header_of(const std::vector<std::string>& entries) {
  return fmt::format("{{{}}}", fmt::join(entries, ","));
}

std::string small_file() {
  return SafetensorsBuilder()
      .entry(R"("__metadata__":{"format":"pt","note":"a \"word\""})")
      .add("w", "F16", {2, 3}, bytes_of<uint16_t>({1, 2, 3, 4, 5, 6}))
      .add("b", "F32", {2}, bytes_of<float>({0.5F, -1.0F}))
      .build();
}

TEST(Safetensors, ReadsTensorsAndMetadata) {
  const std::string file = small_file();
  const SafetensorsContents contents = parse(file);
  ASSERT_EQ(contents.tensors.size(), 2U);
  const HostTensor& w = contents.tensors[0];
  EXPECT_EQ(w.name, "w");
  EXPECT_EQ(w.dtype, DType::kF16);
  EXPECT_EQ(w.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(w.data[0], std::byte{1});
  EXPECT_EQ(contents.tensors[1].name, "b");
  EXPECT_EQ(contents.tensors[1].data, w.data + 12);
  EXPECT_EQ(reinterpret_cast<const char*>(w.data + 20), file.data() + file.size());
  EXPECT_EQ(contents.metadata,
            (std::map<std::string, std::string>{{"format", "pt"}, {"note", "a \"word\""}}));
}

TEST(Safetensors, ReadsEveryDTypeScalarsAndEmptyTensors) {
  SafetensorsBuilder builder;
  builder.add("F32", "F32", {}, std::string(4, '\0')).add("BF16", "BF16", {1}, "ab");
  builder.add("empty", "F16", {3, 0, 9000000000000000000}, "").add("F16", "F16", {1, 1}, "ab");
  builder.add("I8", "I8", {3}, "abc").add("U8", "U8", {1}, "a").add("end", "F32", {0}, "");
  builder.add("I32", "I32", {1}, "abcd").add("I64", "I64", {1}, "abcdefgh");
  const std::string file = builder.build();
  const SafetensorsContents contents = parse(file);
  EXPECT_EQ(contents.tensors.size(), 9U);
  for (const HostTensor& tensor : contents.tensors) {
    if (tensor.elements() == 0) continue;
    EXPECT_EQ(name(tensor.dtype), [&] {
      std::string lower = tensor.name;
      for (char& c : lower) c = static_cast<char>(std::tolower(c));
      return lower;
    }());
  }
}

TEST(Safetensors, SortsTensorsByTheirBytes) {
  const std::string file =
      raw_safetensors(header_of({entry("late", 3, 5), entry("early", 0, 3)}), "abcde");
  const SafetensorsContents contents = parse(file);
  EXPECT_EQ(contents.tensors[0].name, "early");
  EXPECT_EQ(contents.tensors[1].data[0], std::byte{'d'});
}

TEST(Safetensors, MayHoldNoTensors) {
  EXPECT_TRUE(parse(raw_safetensors("{}", "")).tensors.empty());
  EXPECT_TRUE(parse(raw_safetensors("{}   \n", "")).tensors.empty());
}

TEST(Safetensors, RefusesEveryTruncation) {
  const std::string file = small_file();
  for (size_t size = 0; size < file.size(); ++size) {
    const std::string error = error_in(file.substr(0, size));
    EXPECT_TRUE(error.starts_with("x: ")) << size << error;
  }
  EXPECT_TRUE(holds(error_in(file.substr(0, 7)), "it has only 7 bytes"));
  EXPECT_TRUE(holds(error_in(file.substr(0, 20)), "only 12 are there; is the file truncated?"));
  EXPECT_TRUE(holds(error_in(file.substr(0, file.size() - 1)),
                    "\"b\" ends at byte 20, but the file has 19 after its header"));
  EXPECT_TRUE(holds(error_in(file + "!"), "tensors end at byte 20, but it holds 21"));
}

TEST(Safetensors, RefusesHeadersOfBadLength) {
  std::string file = small_file();
  for (int i = 0; i < 8; ++i) file[i] = '\xFF';
  EXPECT_TRUE(holds(error_in(file), "its header would have 18446744073709551615 bytes"));
  std::string huge(8, '\0');
  huge.replace(0, 4, "\x00\xE1\xF5\x05", 4);  // 100,000,000: allowed, but not there
  EXPECT_TRUE(holds(error_in(huge), "its header has 100000000 bytes, but only 0 are there"));
  huge[0] = 1;
  EXPECT_TRUE(holds(error_in(huge), "at most 100000000 are allowed"));
  EXPECT_TRUE(holds(error_in(std::string(16, '\0')), "does not begin with '{'"));
}

TEST(Safetensors, RefusesHeadersThatAreNoObject) {
  for (const char* header : {" {}", "[]", "\xEF\xBB\xBF{}", "\"{\"", "1"}) {
    EXPECT_TRUE(holds(error_of_header(header), "does not begin with '{'")) << header;
  }
  for (const char* header : {"{", "{}{}", "{},", "{\"a\"}", "{'a':1}", "{\"\xFF\":{}}", "{}x"}) {
    EXPECT_TRUE(holds(error_of_header(header), "is not valid JSON")) << header;
  }
  EXPECT_TRUE(holds(error_of_header(std::string("{}\0\0", 4)), "a zero byte"));
}

TEST(Safetensors, RefusesKeysThatAppearTwice) {
  EXPECT_EQ(error_of_header(header_of({entry("a", 0, 1), entry("b", 1, 2), entry("a", 2, 3)}), 3),
            "x: the tensor \"a\" appears twice");
  EXPECT_TRUE(holds(error_of_header(header_of({entry("a", 0, 1), entry("\\u0061", 1, 2)}), 2),
                    "\"a\" appears twice"));
  EXPECT_TRUE(
      holds(error_of_header(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"shape":[0]}})"),
            "\"a\" has the key shape twice"));
  EXPECT_TRUE(holds(error_of_header(R"({"__metadata__":{},"__metadata__":{}})"),
                    "\"__metadata__\" appears twice"));
  EXPECT_TRUE(holds(error_of_header(R"({"__metadata__":{"k":"1","k":"1"}})"),
                    "\"__metadata__\" has the key \"k\" twice"));
}

TEST(Safetensors, RefusesEntriesOfAnotherForm) {
  for (const char* value : {"1", "\"F32\"", "null", "true", "[]", "-1", "1.5"}) {
    EXPECT_TRUE(holds(error_of_header(std::string("{\"a\":") + value + "}"),
                      "\"a\" is not described by an object"))
        << value;
    EXPECT_TRUE(holds(error_of_header(std::string("{\"__metadata__\":") + value + "}"),
                      "\"__metadata__\" is not an object of strings"))
        << value;
  }
  for (const char* value : {"1", "null", "{}", "[]", "[\"x\"]", "false", "-1", "1.5"}) {
    EXPECT_TRUE(holds(error_of_header(std::string(R"({"__metadata__":{"k":)") + value + "}}"),
                      "\"__metadata__\" is not an object of strings"))
        << value;
  }
  EXPECT_TRUE(holds(error_of_header(R"({"a":{"size":3}})"), "the key \"size\", which the format"));
  EXPECT_TRUE(holds(error_of_header(R"({"a":{}})"), "\"a\" has no dtype"));
  EXPECT_TRUE(holds(error_of_header(R"({"a":{"dtype":"U8"}})"), "\"a\" has no shape"));
  EXPECT_TRUE(
      holds(error_of_header(R"({"a":{"dtype":"U8","shape":[]}})"), "\"a\" has no data_offsets"));
}

TEST(Safetensors, RefusesBadDTypes) {
  for (const char* dtype : {"BOOL", "F64", "F8_E4M3", "f32", "", "F32 "}) {
    EXPECT_TRUE(holds(error_of_tensor(std::string("\"") + dtype + "\"", "[1]", "[0,1]", 1),
                      std::string("\"a\" has the dtype ") + dtype + "; only F32, "))
        << dtype;
  }
  for (const char* dtype : {"1", "null", "[]", "{}", "[\"F32\"]", "true"}) {
    EXPECT_TRUE(
        holds(error_of_tensor(dtype, "[1]", "[0,1]", 1), "\"a\" has a dtype that is not a string"))
        << dtype;
  }
}

TEST(Safetensors, RefusesBadShapes) {
  for (const char* shape : {"1", "null", "{}", "[-1]", "[1.0]", "[\"1\"]", "[[1]]", "[null]",
                            "[18446744073709551616]", "\"[1]\""}) {
    EXPECT_TRUE(holds(error_of_tensor("\"U8\"", shape, "[0,1]", 1),
                      "\"a\" has a shape that is not a list of sizes"))
        << shape;
  }
  EXPECT_TRUE(holds(error_of_tensor("\"U8\"", "[9223372036854775808]", "[0,1]", 1),
                    "\"a\" has a size of 9223372036854775808"));
  EXPECT_TRUE(holds(error_of_tensor("\"U8\"", "[1,1,1,1,1,1,1,1,1]", "[0,1]", 1),
                    "\"a\" has more than 8 dimensions"));
}

TEST(Safetensors, RefusesShapesWhoseSizeOverflows) {
  for (const char* shape : {"[4294967296,4294967296]", "[9223372036854775807,2]",
                            "[4611686018427387904,4]", "[9223372036854775807,3,0]"}) {
    EXPECT_TRUE(holds(error_of_tensor("\"U8\"", shape, "[0,0]", 0), "the impossible shape"))
        << shape;
  }
  // 2^62 elements fit, their 2^64 bytes do not.
  EXPECT_TRUE(holds(error_of_tensor("\"F32\"", "[4611686018427387904]", "[0,0]", 0),
                    "the impossible shape [4611686018427387904]"));
}

TEST(Safetensors, RefusesBadOffsets) {
  for (const char* offsets : {"1", "null", "{}", "[]", "[0]", "[0,1,1]", "[-1,0]", "[0,1.0]",
                              "[\"0\",\"1\"]", "[[0,1]]", "[0,18446744073709551616]"}) {
    EXPECT_TRUE(holds(error_of_tensor("\"U8\"", "[1]", offsets, 1),
                      "\"a\" has data_offsets that are not two whole numbers"))
        << offsets;
  }
  EXPECT_EQ(error_of_tensor("\"U8\"", "[1]", "[1,0]", 1),
            "x: the tensor \"a\" ends at byte 0, before it begins at 1");
  EXPECT_TRUE(holds(error_of_tensor("\"U8\"", "[1]", "[0,2]", 1), "\"a\" ends at byte 2, but"));
  EXPECT_TRUE(
      holds(error_of_tensor("\"U8\"", "[1]", "[18446744073709551615,18446744073709551615]", 1),
            "ends at byte 18446744073709551615"));
  EXPECT_EQ(error_of_tensor("\"F16\"", "[2,3]", "[0,13]", 13),
            "x: the tensor \"a\" has 13 bytes, but f16 [2, 3] takes 12");
  EXPECT_TRUE(holds(error_of_tensor("\"F16\"", "[2]", "[0,2]", 2), "has 2 bytes, but"));
}

TEST(Safetensors, RefusesOverlapsAndHoles) {
  EXPECT_EQ(error_of_header(header_of({entry("a", 0, 3), entry("b", 2, 4)}), 4),
            "x: the tensor \"b\" begins at byte 2, where 3 was due: tensors overlap");
  EXPECT_TRUE(holds(error_of_header(header_of({entry("a", 0, 3), entry("b", 0, 3)}), 3),
                    "begins at byte 0, where 3 was due: tensors overlap"));
  EXPECT_TRUE(holds(error_of_header(header_of({entry("a", 0, 4), entry("b", 2, 2)}), 4),
                    "\"b\" begins at byte 2, where 4 was due: tensors overlap"));
  EXPECT_EQ(error_of_header(header_of({entry("b", 2, 4), entry("a", 0, 1)}), 4),
            "x: the tensor \"b\" begins at byte 2, where 1 was due: tensors leave a hole");
  EXPECT_TRUE(holds(error_of_header(header_of({entry("a", 1, 2)}), 2), "tensors leave a hole"));
  EXPECT_EQ(error_of_header(header_of({entry("a", 0, 1)}), 2),
            "x: its tensors end at byte 1, but it holds 2 after its header");
  EXPECT_TRUE(holds(error_of_header("{}", 1), "its tensors end at byte 0, but it holds 1"));
}

TEST(Safetensors, EscapesNamesInMessages) {
  const std::string error = error_of_header("{\"\\u001b[31m\\n\":1}");
  EXPECT_EQ(error, "x: the tensor \"\\x1b[31m\\x0a\" is not described by an object");
  EXPECT_LT(error_of_header("{\"" + std::string(100'000, 'n') + "\":1}").size(), 300U);
}

// Millions of brackets: refused at once, neither on the stack nor in memory.
TEST(Safetensors, RefusesDeepNesting) {
  const std::string brackets(5'000'000, '[');
  EXPECT_TRUE(holds(error_of_header("{\"a\":" + brackets), "is not described by an object"));
  EXPECT_TRUE(holds(error_of_header(R"({"a":{"shape":)" + brackets), "has a shape that is not"));
  std::string objects;
  for (int i = 0; i < 1'000'000; ++i) objects += "{\"a\":";
  EXPECT_TRUE(holds(error_of_header(objects), "the key \"a\", which the format does not have"));
}

// Names alike and in the worst order: anything quadratic would take minutes.
TEST(Safetensors, ReadsManyTensors) {
  constexpr int kTensors = 100'000;
  SafetensorsBuilder builder;
  for (int i = kTensors; i-- > 0;) {
    builder.entry(entry(std::string(40, 'n') + std::to_string(i), i, i + 1));
  }
  std::string file = builder.build() + std::string(kTensors, '\0');
  EXPECT_EQ(parse(file).tensors.size(), static_cast<size_t>(kTensors));
}

}  // namespace
}  // namespace ocelli::kernels
