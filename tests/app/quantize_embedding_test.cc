// `ocelli quantize --embedding`: the decoder's embeddings in a format of their own.
#include <nlohmann/json.hpp>

#include "kernels/checkpoint.h"
#include "tests/app/command.h"

namespace ocelli::app {
namespace {

using nlohmann::json;

std::string golden(const std::string& name) {
  return source_path("tests/golden/stories/" + name).string();
}

// A packed model, and what its table of embeddings is.
class Packed {
 public:
  Packed(const std::string& source, const std::string& options) {
    const Finished run = run_ocelli("quantize -q " + options + " " + source + " " + path());
    EXPECT_EQ(run.code, 0) << run.err;
  }
  std::string path() const { return (folder_ / "model.ocelli").string(); }
  kernels::HostTensor table(const std::string& name) const {
    const auto checkpoint = kernels::Checkpoint::open(path());
    kernels::HostTensor tensor = checkpoint.tensors().at(name);
    tensor.data = nullptr;  // it goes with the checkpoint
    return tensor;
  }

 private:
  TemporaryFolder folder_;
};

const std::string kTable = "language_model.model.embed_tokens.weight";

TEST(QuantizeEmbedding, Int8IsSmallerAndAnswersTheSameEverywhere) {
  const std::string demo = source_path("assets/demo").string();
  const Packed plain(demo, "");
  const Packed packed(demo, "--embedding int8");
  EXPECT_EQ(plain.table(kTable).dtype, kernels::DType::kF16);
  const kernels::HostTensor table = packed.table(kTable);
  EXPECT_EQ(table.dtype, kernels::DType::kI8);
  EXPECT_EQ(table.group, table.shape[1]);
  // A byte a value less, and a scale for each row.
  const int64_t saved = table.elements() - table.shape[0] * int64_t{sizeof(float)};
  EXPECT_NEAR(static_cast<double>(fs::file_size(plain.path()) - fs::file_size(packed.path())),
              static_cast<double>(saved), 512);
  const std::string ask = "ask -q --max-tokens 12 '" + demo_picture() + "' 'What do you see?' -m ";
  const Finished expected = run_ocelli(ask + plain.path());
  for (const char* backend : {"cpu", "reference", "u280-emulated"}) {
    const Finished found = run_ocelli(ask + packed.path() + " --backend " + backend);
    EXPECT_EQ(found.out, expected.out) << backend << found.err;
  }
  EXPECT_EQ(run_ocelli(ask + packed.path() + " --check").out, expected.out);
  EXPECT_EQ(run_ocelli("inspect --verify " + packed.path()).code, 0);
}

TEST(QuantizeEmbedding, SmallerGroupsAreThoseOfTheMatrices) {
  const Packed packed(source_path("assets/demo").string(), "--embedding int8 --group 32");
  EXPECT_EQ(packed.table(kTable).group, 32);
}

TEST(QuantizeEmbedding, F16HalvesF32AndLeavesTheRest) {
  const Packed packed(golden("tied.v0.bin") + " --tokenizer " + golden("tokenizer.bin"),
                      "--embedding f16");
  EXPECT_EQ(packed.table("model.embed_tokens.weight").dtype, kernels::DType::kF16);
}

TEST(QuantizeEmbedding, WhatIsTiedToTheLastMatrixGoesItsOwnWay) {
  const Packed untied(golden("hf_tied"), "--embedding int8");
  EXPECT_EQ(untied.table("model.embed_tokens.weight").dtype, kernels::DType::kI8);
  EXPECT_EQ(run_ocelli("story -q -m " + untied.path() + " -n 12 -t 0 a").code, 0);
  const TemporaryFolder folder;
  const std::string target = (folder / "m").string();
  expect_failure(
      run_ocelli("quantize --embedding int8 --head f16 " + golden("hf_tied") + " " + target),
      "its embeddings are its last matrix too");
  EXPECT_FALSE(fs::exists(target));
  EXPECT_EQ(run_ocelli("quantize --embedding int4 " + golden("hf_tied") + " " + target).code, 2);
}

}  // namespace
}  // namespace ocelli::app
