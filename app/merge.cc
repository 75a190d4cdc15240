// ocelli merge: puts the parts of a sharded run together, or says what is wrong with them.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "app/caption_inputs.h"
#include "app/caption_outputs.h"
#include "app/caption_tables.h"
#include "app/commands.h"
#include "app/json_output.h"
#include "app/merge_parts.h"
#include "app/terminal.h"
#include "host/error.h"
#include "host/output_file.h"

namespace ocelli::app {
namespace {

constexpr size_t kMostShown = 10;  // faults of a kind; --json has all of them

struct MergeOptions {
  std::vector<std::string> parts;
  CaptionSources inputs;
  std::string output;
  std::string format;   // empty: as the output's extension says
  std::string compare;  // a table of JSON Lines
  bool check = false;
  bool partial = false;
  bool as_json = false;
  bool quiet = false;

  bool has_inputs() const { return !inputs.paths.empty() || !inputs.lists.empty(); }
};

// How each kind of fault begins on standard error.
const char* heading(MergeFault fault) {
  switch (fault) {
    case MergeFault::kMissingPart:
      return "missing part";
    case MergeFault::kRepeatedPart:
      return "part given twice";
    case MergeFault::kMissing:
      return "missing picture";
    case MergeFault::kDuplicate:
      return "duplicate";
    case MergeFault::kMisplaced:
      return "split in another way";
    case MergeFault::kDisagreement:
      return "not of one run";
    case MergeFault::kBrokenLine:
      return "broken line";
    case MergeFault::kTornLine:
      return "torn line";
    case MergeFault::kDifference:
      return "difference";
  }
  return "";
}

void note_faults(const MergedParts& merged, MergeFault fault) {
  const std::vector<std::string>& faults = merged.faults(fault);
  for (size_t i = 0; i < std::min(faults.size(), kMostShown); ++i) {
    note(fmt::format("{}: {}", heading(fault), faults[i]));
  }
  if (faults.size() > kMostShown) {
    note(fmt::format("{}: {} more (--json has them all)", heading(fault),
                     faults.size() - kMostShown));
  }
}

// Says what is wrong. Returns whether anything is that speaks against merging: a torn last line
// does not, since whatever was written before it is sound.
bool note_all_faults(const MergedParts& merged) {
  bool serious = false;
  for (size_t i = 0; i < kMergeFaults; ++i) {
    const auto fault = static_cast<MergeFault>(i);
    note_faults(merged, fault);
    serious |= fault != MergeFault::kTornLine && !merged.faults(fault).empty();
  }
  return serious;
}

// "3 parts, 20 pictures: 18 ok, 2 error"
std::string sentence(const nlohmann::ordered_json& summary) {
  std::string text = fmt::format("{} parts, {} pictures", summary["parts"].get<size_t>(),
                                 summary["pictures"].get<size_t>());
  const char* separator = ": ";
  for (const auto& [status, count] : summary["status"].items()) {
    text += fmt::format("{}{} {}", separator, count.get<size_t>(), status);
    separator = ", ";
  }
  return text;
}

// The lines as they stand in the parts.
void write_lines(const MergedParts& merged, const std::string& output) {
  std::optional<host::OutputFile> file;
  if (output != "-") file.emplace(output);
  for (const std::string_view line : merged.lines()) {
    const std::string ended = std::string(line) + "\n";
    if (file) {
      file->write(ended);
    } else {
      print(ended);
    }
  }
  if (!file) return;
  file->sync();
  file->commit();
}

// As `ocelli caption` would have written it to --output in --format.
void write(const MergedParts& merged, const MergeOptions& options) {
  CaptionOutputOptions outputs;
  outputs.file = options.output.empty() ? "-" : options.output;
  if (!options.format.empty()) {
    const auto& names = caption_format_names();
    outputs.formats.push_back(
        static_cast<CaptionFormat>(std::ranges::find(names, options.format) - names.begin()));
  }
  outputs = completed(outputs);
  if (outputs.formats.front() == CaptionFormat::kJsonl) return write_lines(merged, outputs.file);
  CaptionInputs inputs;
  for (std::string& picture : merged.pictures())
    inputs.pictures.push_back({std::move(picture), ""});
  const std::vector<std::string_view> lines = merged.lines();
  // Prefix and suffix stand in the parts.
  TableWriter(plan_tables(outputs, inputs).front(), outputs, lines.size(), [&](size_t i) {
    return parse_caption_record(lines[i], inputs.pictures[i].path);
  }).finish();
}

void run_merge(const MergeOptions& options) {
  if (options.check && (!options.output.empty() || options.partial)) {
    throw UsageError("--check only reports: it goes with neither -o nor --partial");
  }
  if (options.as_json && !options.check && options.output.empty()) {
    throw UsageError("--json needs --check or -o: the captions would go to standard output too");
  }
  std::vector<std::string> parts = options.parts;
  if (parts.empty()) {
    if (options.output.empty()) throw UsageError("merge what? Name the parts, or -o");
    parts = find_parts(options.output);
    if (parts.empty()) {
      host::fail("{}: no part of it is there ({})", host::printable(options.output, 4096),
                 host::printable(part_path(options.output, {1, 8}), 4096));
    }
  }
  MergedParts merged(parts);
  if (options.has_inputs()) {
    std::vector<std::string> pictures;
    for (CaptionInput& picture : find_pictures(options.inputs).pictures) {
      pictures.push_back(std::move(picture.path));
    }
    merged.follow(pictures);
  }
  if (!options.compare.empty()) merged.compare(options.compare);
  const bool serious = note_all_faults(merged);
  const bool torn = !merged.faults(MergeFault::kTornLine).empty();
  const bool refused = options.check ? serious || torn : serious && !options.partial;
  if (!options.check && !refused) write(merged, options);
  const nlohmann::ordered_json summary = merged.summary();
  if (options.as_json) {
    print(summary.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  } else if (options.check) {
    print(sentence(summary) + "\n");
  } else if (!options.quiet) {
    note(sentence(summary));
  }
  if (!options.check && refused) {
    throw host::Error("nothing was written; --partial writes what there is");
  }
  if (refused) throw Exit{1};
}

}  // namespace

void add_merge(CLI::App& program) {
  auto options = std::make_shared<MergeOptions>();
  CLI::App* command =
      program.add_subcommand("merge", "Put the parts of a sharded caption run together");
  command->add_option("parts", options->parts,
                      "The parts: captions.part-1-of-8.jsonl and so on (default: those of -o, "
                      "beside it)");
  command->add_option("-o,--output", options->output, "Write here (default: standard output)");
  command
      ->add_option("--format", options->format,
                   "What to write: jsonl, csv, imagefolder (default: by the extension of -o)")
      ->check(CLI::IsMember({"jsonl", "csv", "imagefolder"}));
  command->add_option("--compare", options->compare,
                      "Report where this table, of a run without shards say, differs: in all but "
                      "the order and the milliseconds");
  command->add_flag("--check", options->check, "Write nothing, report what is wrong");
  command
      ->add_option("--inputs", options->inputs.paths,
                   "The files, folders and patterns that the run was about")
      ->allow_extra_args();
  command
      ->add_option("--list", options->inputs.lists,
                   "A file with the pictures of the run, a path a line; \"-\": stdin")
      ->allow_extra_args(false);
  command->add_flag("-r,--recursive", options->inputs.recursive,
                    "With --inputs: in subfolders as well");
  command->add_flag("--partial", options->partial,
                    "Write what there is, whatever is missing, duplicate or contradictory");
  command->add_flag("--json", options->as_json, "Print the summary as JSON, every fault in it");
  command->add_flag("-q,--quiet", options->quiet, "Print errors only");
  command->footer(
      "Lines come in the order in which one run over --inputs and --list would write them; "
      "without these, in the order of a run over one folder. Nothing is written when parts or "
      "pictures are missing, when a picture appears twice, or when models or settings differ; a "
      "torn last line is left out. --check exits with 1 when anything is wrong.\n"
      "Examples:\n"
      "  ocelli merge --check captions.part-*-of-8.jsonl --inputs photos --recursive\n"
      "  ocelli merge captions.part-*-of-8.jsonl -o captions.jsonl\n"
      "  ocelli merge --format imagefolder captions.part-*-of-8.jsonl -o photos/metadata.jsonl");
  command->callback([options] { run_merge(*options); });
}

}  // namespace ocelli::app
