// ocelli caption: captions for files and folders of pictures.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "app/caption_job.h"
#include "app/commands.h"
#include "app/terminal.h"

namespace ocelli::app {
namespace {

// The value of an enumeration whose names, in its order, are `names`.
template <typename Enum>
Enum value_of(const std::string& name, const std::vector<std::string>& names) {
  return static_cast<Enum>(std::ranges::find(names, name) - names.begin());
}

void add_input_options(CLI::App& command, CaptionOptions& options) {
  command
      .add_option("paths", options.sources.paths,
                  "Pictures, folders, and patterns in quotes (\"2024-*/*.jpg\")")
      ->type_name("PATH...");
  command
      .add_option("--list", options.sources.lists,
                  "Caption what this file names, a path a line, relative to the file; \"-\": stdin")
      ->allow_extra_args(false);
  command.add_flag("-r,--recursive", options.sources.recursive, "Look into subfolders as well");
}

void add_text_options(CLI::App& command, CaptionOptions& options) {
  command.add_option("--prompt", options.prompt, "What the model is asked")->capture_default_str();
  command.add_option("--begin-with", options.begin_with,
                     "Start every caption with these words, which the model goes on from");
  command
      .add_option("--forbid", options.forbidden,
                  "Words that no caption may contain, separated by commas")
      ->allow_extra_args(false);
  command
      .add_option("--min-confidence", options.min_confidence,
                  "Mark captions whose words had a lower mean probability")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
}

void add_output_options(CLI::App& command, CaptionOptions& options) {
  CaptionOutputOptions& outputs = options.outputs;
  command.add_option("-o,--output", outputs.file,
                     "Write a table: captions.jsonl, or .csv; \"-\": stdout (default: a text file "
                     "beside each picture)");
  command
      .add_option_function<std::vector<std::string>>(
          "--format",
          [&outputs](const std::vector<std::string>& names) {
            for (const std::string& name : names) {
              outputs.formats.push_back(value_of<CaptionFormat>(name, caption_format_names()));
            }
          },
          "What to write, several with commas: jsonl, csv, imagefolder (metadata.jsonl); beside "
          "each picture txt, caption, xmp")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::IsMember(caption_format_names()));
  command.add_option("--out-dir", outputs.directory,
                     "Write here and not beside the pictures; subfolders are kept");
  command.add_option("--caption-extension", outputs.extension,
                     "Extension of text files (default: .txt)");
  command
      .add_option_function<std::string>(
          "--if-exists",
          [&outputs](const std::string& name) {
            outputs.if_exists = value_of<IfExists>(name, if_exists_names());
          },
          "What to do about a caption that is there: skip, overwrite, append, prepend")
      ->check(CLI::IsMember(if_exists_names()))
      ->default_str("skip");
  command
      .add_option("--separator", outputs.separator,
                  "Between what is there and what is appended or prepended")
      ->capture_default_str();
  command.add_option("--prefix", outputs.prefix, "Text before every caption that is written");
  command.add_option("--suffix", outputs.suffix, "Text behind it");
  CLI::Option* heatmap =
      command.add_option("--heatmap", options.heatmap.path,
                         "Write into this folder where the model looked, over each picture (PNG)");
  command.add_flag("--heatmap-words", options.heatmap.words, "And for each word of the caption")
      ->needs(heatmap);
  command.add_option("--report", options.report,
                     "Write a page to look at (HTML): every picture, small, with its caption and "
                     "confidence; pictures that have captions are on it, too");
}

void add_run_options(CLI::App& command, CaptionOptions& options) {
  command
      .add_option("--batch", options.batch,
                  "Captions that are made at once (default: 16, or what the memory takes)")
      ->check(CLI::Range(1, 256));
  command
      .add_option("--max-memory", options.max_memory,
                  "Take no more than this: 8GB, 900MB (default: what is available)")
      ->transform(CLI::AsSizeValue(true));
  command.add_option("--journal", options.journal,
                     "Keep what is done here (default: beside the output)");
  command
      .add_option("--shard", options.shard,
                  "Do one share of a run on many machines: 3/8, or auto: the one that Slurm, "
                  "mpirun, Kubernetes, AWS Batch or GNU parallel says")
      ->type_name("I/N|auto");
  command
      .add_option("--log-every", options.log_seconds,
                  "Where there is no terminal: seconds between lines of progress, 0 for none")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  command.add_flag("--retry-errors", options.retry_errors,
                   "Try again what the journal says failed or was marked");
  command.add_flag("--dry-run", options.dry_run, "Say what would be captioned, and do nothing");
}

}  // namespace

void add_caption(CLI::App& program) {
  auto options = std::make_shared<CaptionOptions>();
  CLI::App* command =
      program.add_subcommand("caption", "Caption photos, one or a hundred thousand");
  add_input_options(*command, *options);
  add_output_options(*command, *options);
  add_text_options(*command, *options);
  add_run_options(*command, *options);
  options->model.add_to(*command);
  options->model.add_system_to(*command);
  options->model.add_row_cache_to(*command);
  options->sampling.add_to(*command);
  command->get_option("--max-tokens")
      ->description("Longest caption (default: 256, or what the context leaves)");
  options->input.add_decode_to(*command);
  command->footer(
      "Examples:\n"
      "  ocelli caption photos/                           a .txt beside each picture\n"
      "  ocelli caption -r photos/ -o captions.jsonl      one line of JSON a picture\n"
      "  ocelli caption dataset/ --prefix \"zwx, \" --begin-with \"A photo of\"\n"
      "  ocelli caption dataset/ --format imagefolder,csv -o captions.csv\n"
      "  find . -name '*.webp' | ocelli caption --list - -o - > captions.jsonl\n"
      "  ocelli caption -r photos/ -o captions.jsonl --shard 3/8   its part; see ocelli merge\n"
      "A run that was stopped or killed goes on where it was when it is started again: what is\n"
      "done stands in a journal beside the output. Ctrl-C, SIGTERM and SIGUSR1 finish the\n"
      "captions in hand and end with exit code 75; a second Ctrl-C ends at once. A picture that\n"
      "cannot be read is a line with its reason. A caption that is empty, runs in circles,\n"
      "declines, is unsure or has a forbidden word is tried once more, with chance and a\n"
      "repetition penalty of 1.15, and if need be marked: it stands with its status in tables,\n"
      "and in no file beside a picture. Exit codes: 0 done, though pictures may have failed; 1\n"
      "nothing could be captioned; 2 wrong usage; 75 stopped, to be started again.");
  command->callback([options] {
    if (options->sources.paths.empty() && options->sources.lists.empty()) {
      throw UsageError("caption what? For example: ocelli caption photos/");
    }
    run_caption(*options);
  });
}

}  // namespace ocelli::app
