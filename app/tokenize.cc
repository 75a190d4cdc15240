// ocelli tokenize: what a vocabulary makes of a text, and back.
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <memory>

#include "app/commands.h"
#include "app/model.h"
#include "app/terminal.h"
#include "host/error.h"
#include "llm/tokenizer.h"

namespace ocelli::app {
namespace {

struct TokenizeOptions {
  std::string tokenizer;
  std::string text;
  bool decode = false;
  bool plain = false;
};

// Ids separated by anything that is no digit or sign: "32,8537" or "[32, 8537]".
std::vector<int32_t> parse_ids(const std::string& text) {
  std::vector<int32_t> ids;
  const char* at = text.data();
  const char* end = at + text.size();
  while (at < end) {
    if (std::string_view(" ,;[]\t\r\n").find(*at) != std::string_view::npos) {
      ++at;
      continue;
    }
    int32_t id = 0;
    const auto [next, error] = std::from_chars(at, end, id);
    if (error != std::errc()) {
      host::fail("'{}' is no list of token ids", host::printable(text));
    }
    ids.push_back(id);
    at = next;
  }
  return ids;
}

void run_tokenize(const TokenizeOptions& options) {
  const std::filesystem::path path =
      options.tokenizer.empty() ? find_model("") : std::filesystem::path(options.tokenizer);
  const std::unique_ptr<llm::Tokenizer> tokenizer = load_vocabulary(path);
  const std::string text = options.text == "-" ? read_stdin() : options.text;
  if (options.decode) {
    const std::vector<int32_t> ids = parse_ids(text);
    for (const int32_t id : ids) {
      if (id < 0 || id >= tokenizer->size()) {
        host::fail("there is no token {}: ids go from 0 to {}", id, tokenizer->size() - 1);
      }
    }
    print(tokenizer->decode(ids) + "\n");
    return;
  }
  const auto special = options.plain ? llm::SpecialTokens::kPlain : llm::SpecialTokens::kParse;
  print(fmt::format("{}\n", fmt::join(tokenizer->encode(text, special), ",")));
}

}  // namespace

void add_tokenize(CLI::App& program) {
  auto options = std::make_shared<TokenizeOptions>();
  CLI::App* command = program.add_subcommand("tokenize", "Print the token ids of a text");
  command->add_option(
      "--tokenizer", options->tokenizer,
      "A model directory, tokenizer.json, .model or .bin (default: the bundled demo's)");
  command->add_option("text", options->text, "The text, or ids with --decode; \"-\": stdin")
      ->required();
  command->add_flag("--decode", options->decode, "From ids back to text");
  command->add_flag("--plain", options->plain,
                    "Control tokens in the text are text like any other");
  command->footer("Example:\n  ocelli tokenize \"What is this?\"");
  command->callback([options] { run_tokenize(*options); });
}

}  // namespace ocelli::app
