// Parses the command line, runs one command, and holds the one catch.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <new>

#include "app/commands.h"
#include "app/terminal.h"
#include "host/error.h"

namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;

int report(const char* message, int code) {
  std::fprintf(stderr, "ocelli: %s\n", message);
  return code;
}

int run(int argc, char** argv) {
  CLI::App program{"Ask about images and tell stories on your own machine.", "ocelli"};
  program.set_version_flag("--version", OCELLI_VERSION);
  program.require_subcommand(1);
  program.get_formatter()->column_width(36);
  program.footer(
      "`ocelli COMMAND --help` tells more. Exit codes: 0 done, 1 failed, 2 wrong usage, 75 "
      "stopped and resumable, 130 interrupted.\n");
  ocelli::app::add_ask(program);
  ocelli::app::add_caption(program);
  ocelli::app::add_story(program);
  ocelli::app::add_eval(program);
  ocelli::app::add_merge(program);
  ocelli::app::add_perplexity(program);
  ocelli::app::add_bench(program);
  ocelli::app::add_quantize(program);
  ocelli::app::add_inspect(program);
  ocelli::app::add_tokenize(program);
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return program.exit(error) == 0 ? 0 : kUsage;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  // A closed pipe and a file that may not grow are errors like any other.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    return run(argc, argv);
  } catch (const ocelli::app::UsageError& error) {
    return report(error.what(), kUsage);
  } catch (const ocelli::app::Exit& exit) {
    return exit.code;
  } catch (const ocelli::host::Error& error) {
    return report(error.what(), kFailed);
  } catch (const std::bad_alloc&) {
    return report("out of memory", kFailed);
  } catch (const std::exception& error) {
    return report(error.what(), kFailed);
  }
}
