#include "app/launcher.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <utility>

#include "app/terminal.h"
#include "host/error.h"

namespace ocelli::app {
namespace {

constexpr const char* kCount = "OCELLI_SHARD_COUNT";
constexpr int kMaxId = 1'000'000'000;  // no launcher counts further

template <typename... Args>
[[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) {
  throw UsageError(fmt::format(format, std::forward<Args>(args)...));
}

// The variables of a launcher, all of which are whole numbers.
class Variables {
 public:
  explicit Variables(const Environment& environment) : environment_(environment) {}

  // Nothing when the variable is not set, or empty, as job files leave what they do not use.
  std::optional<int> find(const char* name) const {
    const char* text = environment_(name);
    if (text == nullptr || *text == '\0') return std::nullopt;
    const std::string_view value = text;
    int number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc() || end != value.data() + value.size() || number < 0 ||
        number > kMaxId) {
      refuse("{} is \"{}\", wanted a number from 0", name, host::printable(value));
    }
    return number;
  }

  int get(const char* name) const {
    const auto number = find(name);
    if (!number) refuse("{} is not set", name);
    return *number;
  }

 private:
  const Environment& environment_;
};

// What one launcher says. Without a count it knows its own place only.
struct Place {
  int index = 0;
  std::optional<int> count;
  std::string told_by;  // the variables, for messages
};

using Stated = std::optional<int>;

// A rank and a size under two names; nothing when neither is set.
std::optional<Place> ranked(const Variables& variables, const char* rank, const char* size) {
  if (!variables.find(rank) && !variables.find(size)) return std::nullopt;
  const int index = variables.get(rank);
  const int count = variables.get(size);
  return Place{index, count, fmt::format("{}={}, {}={}", rank, index, size, count)};
}

// The tasks of a job step. A batch script runs as the first task of no step: it has a SLURM_PROCID
// of 0 too, but its SLURM_NTASKS only counts what srun would start.
std::optional<Place> slurm_step(const Variables& variables) {
  if (variables.find("SLURM_JOB_ID") && !variables.find("SLURM_STEP_ID")) return std::nullopt;
  return ranked(variables, "SLURM_PROCID", "SLURM_NTASKS");
}

// The members of a job array. With the number of members stated, the ids are 0 … stated - 1,
// whichever of them this submission has; without, the submission must be all there is.
std::optional<Place> slurm_array(const Variables& variables, Stated stated) {
  const auto id = variables.find("SLURM_ARRAY_TASK_ID");
  if (!id) return std::nullopt;
  const std::string told_by = fmt::format("SLURM_ARRAY_TASK_ID={}", *id);
  if (stated) {
    const int last = std::max(*id, variables.find("SLURM_ARRAY_TASK_MAX").value_or(0));
    if (last >= *stated) {
      refuse("the Slurm array reaches id {}; with {} members stated the ids are 0-{}", last,
             *stated, *stated - 1);
    }
    return Place{*id, *stated, told_by};
  }
  const int first = variables.get("SLURM_ARRAY_TASK_MIN");
  const int last = variables.get("SLURM_ARRAY_TASK_MAX");
  const int count = variables.get("SLURM_ARRAY_TASK_COUNT");
  const int step = std::max(1, variables.find("SLURM_ARRAY_TASK_STEP").value_or(1));
  if (*id < first || *id > last || (*id - first) % step != 0) {
    refuse("{} is not one of {}-{}:{} (SLURM_ARRAY_TASK_MIN, _MAX, _STEP)", told_by, first, last,
           step);
  }
  if (first > 1 || (last - first) / step + 1 != count) {
    refuse(
        "the Slurm array has {} members of ids {} to {}, which looks like a few of a larger array, "
        "submitted again: state the number of all shards as in --shard slurm/8 with ids 0-7, or "
        "give "
        "one as in --shard 3/8",
        count, first, last);
  }
  return Place{(*id - first) / step, count, told_by};
}

// An array, a step, or steps in every member of an array.
std::optional<Place> slurm(const Variables& variables, Stated stated) {
  const auto step = slurm_step(variables);
  const int tasks = step ? *step->count : 1;
  if (stated && tasks > 0 && variables.find("SLURM_ARRAY_TASK_ID")) {
    if (*stated % tasks != 0) {
      refuse("{} shards cannot be spread evenly over steps of {} tasks (SLURM_NTASKS)", *stated,
             tasks);
    }
    stated = *stated / tasks;
  }
  const auto array = slurm_array(variables, stated);
  if (!array || !step) return array ? array : step;
  const int64_t count = int64_t{*array->count} * tasks;
  const int64_t index = int64_t{array->index} * tasks + step->index;
  if (count > kMaxProcesses) refuse("{} tasks are more than {}", count, kMaxProcesses);
  return Place{static_cast<int>(index), static_cast<int>(count),
               fmt::format("{}, {}", array->told_by, step->told_by)};
}

std::optional<Place> openmpi(const Variables& variables, Stated /*stated*/) {
  return ranked(variables, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE");
}

// srun speaks PMI to its tasks; that says nothing new.
std::optional<Place> pmi(const Variables& variables, Stated /*stated*/) {
  auto place = ranked(variables, "PMI_RANK", "PMI_SIZE");
  const auto step = slurm_step(variables);
  if (place && step && place->index == step->index && place->count == step->count) return {};
  return place;
}

std::optional<Place> kubernetes(const Variables& variables, Stated stated) {
  const auto index = variables.find("JOB_COMPLETION_INDEX");
  if (!index) return std::nullopt;
  return Place{*index, stated, fmt::format("JOB_COMPLETION_INDEX={}", *index)};
}

std::optional<Place> aws_batch(const Variables& variables, Stated stated) {
  const auto index = variables.find("AWS_BATCH_JOB_ARRAY_INDEX");
  if (!index) return std::nullopt;
  const auto size = variables.find("AWS_BATCH_JOB_ARRAY_SIZE");
  return Place{*index, size ? size : stated, fmt::format("AWS_BATCH_JOB_ARRAY_INDEX={}", *index)};
}

// GNU parallel numbers its jobs from 1. (PARALLEL_JOBSLOT is no share: a slot runs many jobs.)
std::optional<Place> parallel(const Variables& variables, Stated stated) {
  const auto job = variables.find("PARALLEL_SEQ");
  if (!job) return std::nullopt;
  if (*job == 0) refuse("PARALLEL_SEQ is 0, wanted a number from 1");
  return Place{*job - 1, stated, fmt::format("PARALLEL_SEQ={}", *job)};
}

struct Launcher {
  const char* name;
  std::optional<Place> (*read)(const Variables& variables, Stated stated);
};
constexpr std::array<Launcher, 6> kLaunchers = {{{"slurm", slurm},
                                                 {"openmpi", openmpi},
                                                 {"pmi", pmi},
                                                 {"kubernetes", kubernetes},
                                                 {"aws-batch", aws_batch},
                                                 {"parallel", parallel}}};

struct Told {
  const char* launcher;
  Place place;
};

void require_sound(const Told& told, Stated stated) {
  const Place& place = told.place;
  if (!place.count) {
    refuse(
        "{} does not say how many processes there are ({}): state it as in --shard {}/8, or in {}",
        told.launcher, place.told_by, told.launcher, kCount);
  }
  if (*place.count < 1 || *place.count > kMaxProcesses || place.index >= *place.count) {
    refuse("{} says process {} of {}, counted from 0 ({}), which cannot be", told.launcher,
           place.index, *place.count, place.told_by);
  }
  if (stated && *place.count != *stated) {
    refuse("{} started {} processes ({}), not {}", told.launcher, *place.count, place.told_by,
           *stated);
  }
}

// Of several that tell something, those that know of one process only say nothing.
void drop_single(std::vector<Told>& told) {
  const auto single = [](const Told& one) { return one.place.count == 1; };
  if (!std::ranges::all_of(told, single)) std::erase_if(told, single);
}

void require_agreement(const std::vector<Told>& told) {
  for (const Told& other : told) {
    const Told& first = told.front();
    if (other.place.index == first.place.index && other.place.count == first.place.count) continue;
    refuse(
        "{} says process {} of {} ({}), {} says {} of {} ({}), counted from 0: name the one that "
        "is "
        "meant, as in --shard {}",
        first.launcher, first.place.index, *first.place.count, first.place.told_by, other.launcher,
        other.place.index, *other.place.count, other.place.told_by, other.launcher);
  }
}

[[noreturn]] void refuse_silence(std::string_view launcher, const Variables& variables) {
  if (variables.find("SLURM_JOB_ID")) {
    refuse("this Slurm job is no array, and the program was not started by srun");
  }
  if (launcher == "auto") {
    refuse("no launcher says which process this is: give the shard as in --shard 2/8");
  }
  refuse("the environment holds nothing of {}", launcher);
}

}  // namespace

const char* process_environment(const char* name) {
  return std::getenv(name);
}

std::vector<std::string> launcher_names() {
  std::vector<std::string> names;
  for (const Launcher& launcher : kLaunchers) names.emplace_back(launcher.name);
  return names;
}

LaunchedProcess launched_as(std::string_view launcher, std::optional<int> stated,
                            const Environment& environment) {
  const Variables variables(environment);
  if (!stated) stated = variables.find(kCount);
  if (stated && (*stated < 1 || *stated > kMaxProcesses)) {
    refuse("{} shards, wanted 1 to {}", *stated, kMaxProcesses);
  }
  std::vector<Told> told;
  for (const Launcher& known : kLaunchers) {
    if (launcher != "auto" && launcher != known.name) continue;
    if (auto place = known.read(variables, stated)) told.push_back({known.name, *place});
  }
  if (told.empty()) refuse_silence(launcher, variables);
  drop_single(told);
  for (const Told& one : told) require_sound(one, stated);
  require_agreement(told);
  return {told.front().place.index, *told.front().place.count};
}

}  // namespace ocelli::app
