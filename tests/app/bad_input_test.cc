// What bad input gets: one clear line, exit code 1 (2 for a wrong command line), no answer.
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>

#include "kernels/checkpoint.h"
#include "tests/app/command.h"

namespace ocelli::app {
namespace {

using nlohmann::json;

std::string ask(const fs::path& picture) {
  return "ask -q '" + picture.string() + "' 'What is there?'";
}
std::string golden_image(const std::string& name) {
  return source_path("tests/golden/images/" + name).string();
}

// A copy of the demo model, to be broken.
class BrokenModel {
 public:
  BrokenModel() { fs::copy(source_path("assets/demo"), folder_ / "model"); }

  fs::path operator/(const std::string& name) const { return folder_ / "model" / name; }
  Finished run(const std::string& question = "What is there?") const {
    return run_ocelli("ask -q -m " + (folder_ / "model").string() + " '" + demo_picture() + "' '" +
                      question + "'");
  }
  void edit_json(const std::string& name, const std::function<void(json&)>& edit) const {
    json object = json::parse(read_file(*this / name));
    edit(object);
    write_file(*this / name, object.dump());
  }
  // Sets the first value of a tensor to fp16 NaN.
  void poison(const std::string& tensor) const {
    const fs::path path = *this / "model.safetensors";
    std::string bytes = read_file(path);
    uint64_t header = 0;
    std::memcpy(&header, bytes.data(), sizeof header);
    const json entries = json::parse(bytes.substr(8, header));
    const uint64_t begin = entries[tensor]["data_offsets"][0];
    bytes[8 + header + begin] = '\x00';
    bytes[8 + header + begin + 1] = '\x7E';
    write_file(path, bytes);
  }

 private:
  TemporaryFolder folder_;
};

TEST(BadPicture, MissingEmptyOrNoPictureAtAll) {
  const TemporaryFolder folder;
  expect_failure(run_ocelli(ask(folder / "none.png")), "none.png");
  write_file(folder / "empty.png", "");
  expect_failure(run_ocelli(ask(folder / "empty.png")), "is empty");
  write_file(folder / "text.png", "this is a text, not a picture, whatever its name says");
  expect_failure(run_ocelli(ask(folder / "text.png")), "text.png");
  expect_failure(run_ocelli(ask(folder.path())), folder.path().string());
  expect_failure(run_ocelli("ask -q - 'What is there?'", ""), "standard input");
}

TEST(BadPicture, TruncatedOrLying) {
  const TemporaryFolder folder;
  const std::string whole = read_file(demo_picture());
  for (const size_t size : {size_t{9}, whole.size() / 2, whole.size() - 20}) {
    write_file(folder / "cut.png", whole.substr(0, size));
    expect_failure(run_ocelli(ask(folder / "cut.png")), "cut.png");
  }
  expect_failure(run_ocelli(ask(golden_image("claim.png"))), "claim.png");
}

TEST(BadPicture, TooLargeIsRefusedWithTheNumbers) {
  expect_failure(run_ocelli(ask(golden_image("bomb.png"))), "30000");
}

TEST(BadPicture, TooNarrowToBeMadeASquareIsRefused) {
  const TemporaryFolder folder;
  // A picture that is allowed by its pixels, but would be widened 96 times first.
  std::string tall = "P5 1 20000000 255\n";
  tall.resize(tall.size() + 20'000'000, '\x40');
  write_file(folder / "tall.pgm", tall);
  expect_failure(run_ocelli(ask(folder / "tall.pgm")), "too narrow");
}

TEST(BadPicture, OnePixelIsAPicture) {
  const Finished run = run_ocelli(ask(golden_image("one.png")));
  EXPECT_EQ(run.code, 0) << run.err;
}

TEST(BadModel, MissingOrBrokenFiles) {
  for (const char* name : {"config.json", "model.safetensors", "vocab.json", "merges.txt"}) {
    const BrokenModel model;
    fs::remove(model / name);
    const Finished run = model.run();
    EXPECT_EQ(run.code, 1) << name;
    EXPECT_EQ(run.out, "");
    EXPECT_NE(run.err.find(std::string(name).substr(0, 5)), std::string::npos) << run.err;
    write_file(model / name, "{");
    expect_failure(model.run(), name);
  }
}

TEST(BadModel, ACheckpointCutShort) {
  const BrokenModel model;
  const std::string whole = read_file(model / "model.safetensors");
  for (const size_t size : {size_t{4}, size_t{2000}, whole.size() - 1}) {
    write_file(model / "model.safetensors", whole.substr(0, size));
    expect_failure(model.run(), "model.safetensors");
  }
}

TEST(BadModel, NaNWeightsAreNamed) {
  const BrokenModel model;
  const std::string name =
      "vision_tower._vision_tower.vision_model.encoder.layers.1.mlp.fc1.weight";
  model.poison(name);
  expect_failure(model.run(), name);
}

TEST(BadModel, OneQuestionThatMeetsNaNDoesNotCostTheOthersTheirAnswers) {
  const BrokenModel model;
  model.poison("language_model.model.embed_tokens.weight");  // of token 0, "!"
  const TemporaryFolder folder;
  const std::string line = "{\"image\": \"" + demo_picture() + "\", \"question\": ";
  write_file(folder / "q.jsonl", line + "\"What is there?\"}\n" + line + "\"What is there!\"}\n" +
                                     line + "\"What is there?\"}\n");
  const Finished run = run_ocelli("ask -q -m " + (model / "").string() + " --jsonl " +
                                  (folder / "q.jsonl").string());
  EXPECT_EQ(run.code, 1);
  std::vector<json> lines;
  std::istringstream stream(run.out);
  for (std::string text; std::getline(stream, text);) lines.push_back(json::parse(text));
  ASSERT_EQ(lines.size(), 3U) << run.err;
  EXPECT_TRUE(lines[0].contains("answer"));
  EXPECT_NE(lines[1].value("error", "").find("embed_tokens"), std::string::npos);
  EXPECT_EQ(lines[0]["answer"], lines[2]["answer"]);
}

TEST(BadModel, AConfigThatContradictsItsTensorsNamesThemOneByOne) {
  const BrokenModel model;
  model.edit_json("config.json",
                  [](json& config) { config["text_config"]["intermediate_size"] = 100; });
  const Finished run = model.run();
  expect_failure(run, "language_model.model.layers.0.mlp.fc1.weight");
  EXPECT_NE(run.err.find("language_model.model.layers.3.mlp.fc2.weight"), std::string::npos);
  EXPECT_NE(run.err.find("[100, 192]"), std::string::npos) << run.err;
}

TEST(BadModel, WhatIsNotSupportedIsNamed) {
  const auto refuse = [](const std::function<void(json&)>& edit, const std::string& message) {
    const BrokenModel model;
    model.edit_json("config.json", edit);
    expect_failure(model.run(), message);
  };
  refuse([](json& c) { c["connector_type"] = "qformer"; }, "qformer");
  refuse([](json& c) { c["text_config"]["model_type"] = "gemma"; }, "gemma");
  refuse([](json& c) { c["model_type"] = "llava"; }, "llava");
  refuse([](json& c) { c["image_aspect_ratio"] = "anyres"; }, "anyres");
  refuse([](json& c) { c["vision_config"]["model_type"] = "clip_vision_model"; }, "clip");
  refuse([](json& c) { c["vision_feature_layer"] = -99; }, "-99");
  refuse([](json& c) { c["vision_config"]["num_attention_heads"] = 7; }, "num_attention_heads 7");
  refuse([](json& c) { c["text_config"]["hidden_size"] = "wide"; }, "hidden_size");
}

TEST(BadModel, AVocabularyWithAHoleInIt) {
  const BrokenModel model;
  model.edit_json("vocab.json", [](json& vocabulary) { vocabulary.erase("W"); });
  const Finished run = model.run("What is there?");
  EXPECT_EQ(run.code, 1);
  EXPECT_EQ(run.out, "");
  EXPECT_EQ(run.err.rfind("ocelli: ", 0), 0U) << run.err;
}

TEST(BadQuestion, EmptyOrNotUtf8) {
  expect_failure(run_ocelli("ask -q '" + demo_picture() + "' ''"), "the question is empty");
  expect_failure(run_ocelli("ask -q '" + demo_picture() + "' -", " \n"), "the question is empty");
  expect_failure(run_ocelli("ask -q '" + demo_picture() + "' -", "What \xFF is it?"), "UTF-8");
}

TEST(BadQuestion, AContextThatWouldOverflowIsRefusedWithTheNumbers) {
  std::string question;
  for (int i = 0; i < 2000; ++i) question += "house ";
  expect_failure(run_ocelli("ask -q '" + demo_picture() + "' -", question), "1024");
  expect_failure(run_ocelli(ask(demo_picture()) + " --max-tokens 1000"), "1024");
}

// Runs the program with its standard output going to `target` (shell syntax).
Finished run_into(const std::string& target) {
  const TemporaryFolder folder;
  const std::string command = "(sleep 0.1; '" OCELLI_BINARY "' " + ask(demo_picture()) +
                              " --json; echo $? >" + (folder / "code").string() + ") 2>" +
                              (folder / "err").string() + " " + target;
  EXPECT_GE(std::system(command.c_str()), 0);
  return {std::atoi(read_file(folder / "code").c_str()), "", read_file(folder / "err")};
}

TEST(BadOutput, AFullDiskOrAClosedPipeIsAFailure) {
  expect_failure(run_into(">/dev/full"), "standard output: cannot be written: No space left");
  expect_failure(run_into("| true"), "standard output: cannot be written: Broken pipe");
}

TEST(BadOutput, FilesAppearWholeOrNotAtAll) {
  const Finished dump =
      run_ocelli(ask(demo_picture()) + " --dump-input /nonexistent/folder/seen.png");
  expect_failure(dump, "/nonexistent/folder/seen.png");
  const Finished trace = run_ocelli(ask(demo_picture()) + " --trace /nonexistent/trace.json");
  EXPECT_EQ(trace.code, 1);
  EXPECT_NE(trace.err.find("/nonexistent/trace.json"), std::string::npos);
}

TEST(BadUsage, ExitsWith2) {
  for (const char* arguments :
       {"", "nonsense", "ask", "ask --backend abacus x", "ask --threads 0 x", "ask --top-p 7 x",
        "ask --jsonl a.jsonl b.png", "ask --jsonl a.jsonl -i", "ask - -", "eval", "tokenize",
        "ask --dump-input x.png 'no picture'", "ask -i -", "ask --temperature nan x",
        "ask --top-p 0 x", "ask --stop '' x", "ask --jsonl a.jsonl --json"}) {
    const Finished run = run_ocelli(arguments);
    EXPECT_EQ(run.code, 2) << arguments << ": " << run.err;
    EXPECT_EQ(run.out, "") << arguments;
    EXPECT_FALSE(run.err.empty()) << arguments;
  }
  EXPECT_EQ(run_ocelli("ask --help").code, 0);
  EXPECT_EQ(run_ocelli("--version").code, 0);
}

TEST(BadUsage, APictureWithoutAQuestionIsNotAQuestion) {
  EXPECT_EQ(run_ocelli("ask '" + demo_picture() + "'").code, 2);
  expect_failure(run_ocelli("ask -q -i missing.png"), "missing.png");
}

TEST(BadUsage, ArgumentsMayBeLongerThanFileNames) {
  const std::string words = "What is there " + std::string(300, 'e') + "?";
  EXPECT_EQ(run_ocelli("ask -q '" + demo_picture() + "' '" + words + "'").code, 0);
  EXPECT_EQ(run_ocelli("ask -q -i '" + demo_picture() + "' '" + words + "'").code, 0);
  expect_failure(run_ocelli("ask -m " + std::string(300, 'm') + " x"), "there is no such model");
}

TEST(BadUsage, AnInstructionSetThatIsNotThereIsAFailure) {
  expect_failure(run_ocelli(ask(demo_picture()), "", "OCELLI_ISA=mmx"), "scalar");
}

}  // namespace
}  // namespace ocelli::app
