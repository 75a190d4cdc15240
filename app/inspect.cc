// ocelli inspect: what a model is, tensor by tensor, without loading it.
#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "app/commands.h"
#include "app/json_output.h"
#include "app/model.h"
#include "app/terminal.h"
#include "host/error.h"
#include "llm/tokenizer.h"

namespace ocelli::app {
namespace {

using nlohmann::json;

struct InspectOptions {
  std::string model;
  bool as_json = false;
  bool verify = false;
};

struct Inspection {
  OpenedModel model;
  int tokens = 0;
  std::set<std::string> unused;
  std::string problems;  // tensors that are missing or misshapen, a line each
};

Inspection inspect(const std::filesystem::path& path) {
  Inspection found{open_model(path), 0, {}, ""};
  found.tokens = found.model.load_tokenizer()->size();
  kernels::TensorReader reader(found.model.checkpoint);
  read_weights(reader, found.model.config);
  try {
    reader.finish();
  } catch (const host::Error& error) {
    found.problems = error.what();
  }
  for (const std::string& name : reader.unused()) found.unused.insert(name);
  return found;
}

void verify(const kernels::Checkpoint& checkpoint) {
  if (const kernels::PackedContents* packed = checkpoint.packed()) {
    packed->require_intact(checkpoint.path().string());
  }
  checkpoint.require_finite();
}

json vision_json(const VisionConfig& vision) {
  const vision::SiglipConfig& tower = vision.siglip;
  return {{"hidden_size", tower.hidden_size},
          {"intermediate_size", tower.intermediate_size},
          {"heads", tower.num_attention_heads},
          {"image_size", tower.image_size},
          {"patch_size", tower.patch_size},
          {"blocks_run", tower.blocks},
          {"rows_per_image", vision.image_rows()},
          {"aspect_ratio", vision.aspect == AspectRatio::kPad ? "pad" : "square"},
          {"connector_layers", vision.connector.depth}};
}

json text_json(const llm::Phi2Config& text) {
  return {{"hidden_size", text.hidden_size},
          {"intermediate_size", text.intermediate_size},
          {"layers", text.num_hidden_layers},
          {"heads", text.num_attention_heads},
          {"key_value_heads", text.num_key_value_heads},
          {"rotary_dims", text.rotary_dims},
          {"rope_theta", text.rope_theta},
          {"vocab_size", text.vocab_size}};
}

json text_json(const llm::Llama2Config& text) {
  return {{"hidden_size", text.hidden_size},
          {"intermediate_size", text.intermediate_size},
          {"layers", text.num_hidden_layers},
          {"heads", text.num_attention_heads},
          {"key_value_heads", text.num_key_value_heads},
          {"rotary_dims", text.head_dim()},
          {"rope_theta", text.rope_theta},
          {"vocab_size", text.vocab_size}};
}

// "f16", "i8"; "i4" of what is int8 only as a product.
const char* dtype_text(const kernels::HostTensor& tensor) {
  return tensor.factor_group > 0 ? "i4" : kernels::name(tensor.dtype);
}

json to_json(const Inspection& found) {
  json tensors = json::array();
  int64_t bytes = 0;
  int64_t parameters = 0;
  for (const auto& [name, tensor] : found.model.checkpoint.tensors()) {
    tensors.push_back({{"name", name},
                       {"dtype", dtype_text(tensor)},
                       {"shape", tensor.shape},
                       {"bytes", tensor.bytes()},
                       {"used", !found.unused.contains(name)}});
    bytes += tensor.bytes();
    parameters += tensor.elements();
  }
  json object = {{"path", found.model.path.string()},
                 {"model_type", found.model.config.model_type},
                 {"context", found.model.config.context},
                 {"tokens", found.tokens},
                 {"parameters", parameters},
                 {"bytes", bytes},
                 {"text", std::visit([](const auto& text) { return text_json(text); },
                                     found.model.config.text)},
                 {"tensors", tensors}};
  if (!found.problems.empty()) object["problems"] = found.problems;
  if (found.model.config.vision) object["vision"] = vision_json(*found.model.config.vision);
  return object;
}

// "key value, key value" of the flat object, for people.
std::string one_line(const json& object) {
  std::string text;
  for (const auto& [key, value] : object.items()) {
    std::string words = key;
    std::ranges::replace(words, '_', ' ');
    const std::string shown = value.is_string() ? value.get<std::string>() : value.dump();
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", words, shown);
  }
  return text;
}

std::string to_text(const Inspection& found, const json& object) {
  std::string text = fmt::format(
      "{} model, {:.1f} M parameters, {:.1f} MB in {} file{}\n", found.model.config.model_type,
      object["parameters"].get<double>() / 1e6, object["bytes"].get<double>() / 1e6,
      found.model.checkpoint.files().size(), found.model.checkpoint.files().size() == 1 ? "" : "s");
  if (!found.model.config.note.empty())
    text += host::printable(found.model.config.note, 400) + "\n";
  if (object.contains("vision")) text += "vision: " + one_line(object["vision"]) + "\n";
  text += "text: " + one_line(object["text"]) + "\n";
  text += fmt::format("context {} positions, tokenizer of {} tokens\n\n",
                      found.model.config.context, found.tokens);
  for (const auto& [name, tensor] : found.model.checkpoint.tensors()) {
    text +=
        fmt::format("{:<5} {:<18} {:>11}  {}{}\n", dtype_text(tensor),
                    kernels::shape_text(tensor.shape), tensor.bytes(), host::printable(name, 200),
                    found.unused.contains(name) ? "  (unused)" : "");
  }
  return text;
}

void run_inspect(const InspectOptions& options) {
  const Inspection found = inspect(find_model(options.model));
  if (options.verify) verify(found.model.checkpoint);
  const json object = to_json(found);
  print(options.as_json ? json_line(object) : to_text(found, object));
  if (!found.problems.empty()) throw host::Error(found.problems);
}

}  // namespace

void add_inspect(CLI::App& program) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* command = program.add_subcommand("inspect", "Show what a model is made of");
  command->add_option("model", options->model,
                      "Model: file or directory (default: $OCELLI_MODEL, else the bundled demo)");
  command->add_flag("--json", options->as_json, "Print one JSON object");
  command->add_flag("--verify", options->verify,
                    "Read every weight, compare checksums, refuse NaN and infinity");
  command->callback([options] { run_inspect(*options); });
}

}  // namespace ocelli::app
