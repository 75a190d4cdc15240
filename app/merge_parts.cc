#include "app/merge_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <unordered_map>
#include <utility>

#include "host/error.h"
#include "host/utf8.h"

namespace ocelli::app {
namespace {

namespace fs = std::filesystem;

// In the order of the enumeration.
constexpr std::array<const char*, kMergeFaults> kNames = {
    "missing_parts", "repeated_parts", "missing",    "duplicates", "misplaced",
    "disagreements", "broken_lines",   "torn_lines", "differences"};

constexpr size_t kLongestPath = 4096;
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD, for bytes that are not UTF-8

std::string shown(std::string_view path) {
  return host::printable(path, kLongestPath);
}

// The order in which a run over a folder comes by its files: a folder's entries by name, and what
// is in a subfolder where the subfolder's name stands. So "/" comes before every other character.
bool walks_before(std::string_view a, std::string_view b) {
  const auto rank = [](char c) { return c == '/' ? -1 : static_cast<unsigned char>(c); };
  return std::ranges::lexicographical_compare(a, b, {}, rank, rank);
}

// A path as records write it, in which bytes that are not UTF-8 become U+FFFD.
std::string as_written(const std::string& path) {
  if (host::utf8_fault(path) == std::string::npos) return path;
  CaptionRecord record;
  record.path = path;
  return parse_caption_record(to_line(record), path).path;
}

// What two runs over the same pictures have in common: the record without the time it took, key by
// key.
nlohmann::ordered_json comparable(std::string_view line) {
  nlohmann::ordered_json object = nlohmann::ordered_json::parse(line);
  object.erase("milliseconds");
  return object;
}

// The keys that two records do not have in common, with what they have: "caption \"a\", not \"b\"".
std::string differences(const nlohmann::ordered_json& here, const nlohmann::ordered_json& there) {
  const auto text = [](const nlohmann::ordered_json& object, const std::string& key) {
    return object.contains(key)
               ? object[key].dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)
               : "missing";
  };
  std::set<std::string> keys;
  for (const auto* object : {&here, &there}) {
    for (const auto& [key, value] : object->items()) keys.insert(key);
  }
  std::string all;
  for (const std::string& key : keys) {
    if (text(here, key) == text(there, key)) continue;
    all += fmt::format("{}{} {}, not {}", all.empty() ? "" : "; ", key, text(here, key),
                       text(there, key));
  }
  return all;
}

std::string_view text_of(const host::MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

}  // namespace

const char* name(MergeFault fault) {
  return kNames[static_cast<size_t>(fault)];
}

MergedParts::MergedParts(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    std::error_code unreadable;  // is said when it is opened
    const bool empty =
        fs::is_regular_file(path, unreadable) && fs::file_size(path, unreadable) == 0;
    parts_.push_back(
        {path, empty ? nullptr : std::make_unique<host::MappedFile>(path), parse_part_path(path)});
  }
  for (const Part& part : parts_) read(part);
  find_missing_parts();
  find_disagreements();
  find_duplicates();
}

void MergedParts::read(const Part& part) {
  std::string_view rest = part.file ? text_of(*part.file) : std::string_view();
  for (size_t number = 1; !rest.empty(); ++number) {
    const size_t newline = rest.find('\n');
    const bool ended = newline != rest.npos;
    read_line(part, rest.substr(0, newline), number, ended);
    rest.remove_prefix(ended ? newline + 1 : rest.size());
  }
}

// A line without its newline is whole when it is a record: then only the newline was not written.
void MergedParts::read_line(const Part& part, std::string_view line, size_t number, bool ended) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (line.empty()) return;
  const std::string where = fmt::format("{}:{}", shown(part.path), number);
  try {
    accept(part, line, where);
  } catch (const host::Error& error) {
    if (ended) {
      add(MergeFault::kBrokenLine, error.what());
    } else {
      add(MergeFault::kTornLine, where + ": the last line is cut off");
    }
  }
}

void MergedParts::accept(const Part& part, std::string_view line, const std::string& where) {
  CaptionRecord record = parse_caption_record(line, where);
  if (!record.settings.empty()) {
    auto& maker = makers_[{record.model, record.settings}];
    if (maker.first++ == 0) maker.second = where;
  }
  // A path that is not UTF-8 was hashed as it is, which the record no longer tells.
  const bool exact = record.path.find(kReplacement) == std::string::npos;
  if (part.name && exact && !part.name->shard.holds(record.path)) {
    add(MergeFault::kMisplaced, fmt::format("{}: {} does not belong to shard {}", where,
                                            shown(record.path), to_text(part.name->shard)));
  }
  records_.push_back({std::move(record.path), line, where, record.status});
}

void MergedParts::find_missing_parts() {
  const PartName* first = nullptr;
  std::set<int> found;
  for (const Part& part : parts_) {
    if (!part.name) continue;
    if (!first) first = &*part.name;
    const fs::path output = part.name->output;
    if (part.name->shard.count != first->shard.count ||
        output.filename() != fs::path(first->output).filename()) {
      add(MergeFault::kDisagreement,
          fmt::format("{}: is no part of {} in {} shards", shown(part.path), shown(first->output),
                      first->shard.count));
    } else if (!found.insert(part.name->shard.index).second) {
      add(MergeFault::kRepeatedPart, fmt::format("{}: shard {} was given before", shown(part.path),
                                                 to_text(part.name->shard)));
    }
  }
  for (int index = 1; first && index <= first->shard.count; ++index) {
    if (found.contains(index)) continue;
    const Shard shard = {index, first->shard.count};
    std::error_code ignored;
    const bool begun = fs::exists(part_path(first->output + ".journal", shard), ignored);
    add(MergeFault::kMissingPart,
        shown(part_path(first->output, shard)) +
            (begun ? ": its journal is there, so that it was begun" : ""));
  }
}

void MergedParts::find_disagreements() {
  if (makers_.size() < 2) return;
  for (const auto& [maker, records] : makers_) {
    add(MergeFault::kDisagreement,
        fmt::format("{} captions by {} with settings {}, the first at {}", records.first,
                    host::printable(maker.first), host::printable(maker.second), records.second));
  }
}

// Sorts the records and keeps one a picture.
void MergedParts::find_duplicates() {
  std::ranges::stable_sort(records_, walks_before, &Record::path);
  std::vector<Record> kept;
  for (Record& record : records_) {
    if (kept.empty() || kept.back().path != record.path) {
      kept.push_back(std::move(record));
      continue;
    }
    add(MergeFault::kDuplicate,
        fmt::format("{}: {} is in {} already{}", record.where, shown(record.path),
                    kept.back().where, kept.back().line == record.line ? "" : ", otherwise"));
  }
  records_ = std::move(kept);
}

void MergedParts::follow(const std::vector<std::string>& pictures) {
  std::unordered_map<std::string, size_t> places;
  for (size_t i = 0; i < pictures.size(); ++i) places.emplace(as_written(pictures[i]), i);
  std::vector<bool> found(pictures.size());
  for (Record& record : records_) {
    const auto place = places.find(record.path);
    record.place = place == places.end() ? pictures.size() : place->second;
    if (place == places.end()) {
      ++unlisted_;
    } else {
      found[record.place] = true;
    }
  }
  for (size_t i = 0; i < pictures.size(); ++i) {
    if (!found[i]) add(MergeFault::kMissing, shown(pictures[i]));
  }
  std::ranges::stable_sort(records_, {}, &Record::place);
}

void MergedParts::compare(const std::string& path) {
  const MergedParts other(std::vector<std::string>{path});
  for (const MergeFault fault : {MergeFault::kBrokenLine, MergeFault::kDuplicate}) {
    if (!other.faults(fault).empty()) host::fail("{}", other.faults(fault).front());
  }
  std::unordered_map<std::string_view, const Record*> left;
  for (const Record& record : other.records_) left.emplace(record.path, &record);
  for (const Record& record : records_) {
    const auto found = left.find(record.path);
    if (found == left.end()) {
      add(MergeFault::kDifference,
          fmt::format("{}: {} is not in {}", record.where, shown(record.path), shown(path)));
      continue;
    }
    const std::string what = differences(comparable(record.line), comparable(found->second->line));
    if (!what.empty()) {
      add(MergeFault::kDifference, fmt::format("{}: {}: {} ({})", record.where, shown(record.path),
                                               what, found->second->where));
    }
    left.erase(found);
  }
  for (const Record& record : other.records_) {
    if (!left.contains(record.path)) continue;
    add(MergeFault::kDifference,
        fmt::format("{}: {} is in no part", record.where, shown(record.path)));
  }
}

std::vector<std::string> MergedParts::pictures() const {
  std::vector<std::string> pictures;
  for (const Record& record : records_) pictures.push_back(record.path);
  return pictures;
}

std::vector<std::string_view> MergedParts::lines() const {
  std::vector<std::string_view> lines;
  for (const Record& record : records_) lines.push_back(record.line);
  return lines;
}

nlohmann::ordered_json MergedParts::summary() const {
  nlohmann::ordered_json summary = {
      {"parts", parts_.size()}, {"pictures", records_.size()}, {"unlisted", unlisted_}};
  nlohmann::ordered_json& status = summary["status"] = nlohmann::ordered_json::object();
  for (const Record& record : records_) {
    nlohmann::ordered_json& count = status[app::name(record.status)];
    count = count.is_null() ? 1 : count.get<size_t>() + 1;
  }
  for (size_t fault = 0; fault < kMergeFaults; ++fault) summary[kNames[fault]] = faults_[fault];
  return summary;
}

}  // namespace ocelli::app
