// The commands of `ocelli`, one file each; every function adds its subcommand to the program.
#pragma once

#include <CLI/App.hpp>

namespace ocelli::app {

void add_ask(CLI::App& program);
void add_bench(CLI::App& program);
void add_caption(CLI::App& program);
void add_eval(CLI::App& program);
void add_inspect(CLI::App& program);
void add_merge(CLI::App& program);
void add_perplexity(CLI::App& program);
void add_quantize(CLI::App& program);
void add_story(CLI::App& program);
void add_tokenize(CLI::App& program);

}  // namespace ocelli::app
