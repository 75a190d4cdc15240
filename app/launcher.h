// What the programs that start many processes (Slurm, mpirun, Kubernetes …) tell each of them.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ocelli::app {

// The value of an environment variable; null when it is not set.
using Environment = std::function<const char*(const char* name)>;

// The environment of this process.
const char* process_environment(const char* name);

// The names of the launchers that launched_as() knows: "slurm", "openmpi", …
std::vector<std::string> launcher_names();

// A process among those that a launcher started, counted from 0.
struct LaunchedProcess {
  int index = 0;
  int count = 1;
};

// The most processes that a run may be split among.
constexpr int kMaxProcesses = 100'000;

// Which process of how many this is by the environment:
//   slurm       SLURM_ARRAY_TASK_ID (with _MIN, _MAX, _COUNT, _STEP), SLURM_PROCID and SLURM_NTASKS
//   of
//               a job step, or both: every task of every array member
//   openmpi     OMPI_COMM_WORLD_RANK, OMPI_COMM_WORLD_SIZE
//   pmi         PMI_RANK, PMI_SIZE (MPICH, Intel MPI)
//   kubernetes  JOB_COMPLETION_INDEX; the number of completions must be stated
//   aws-batch   AWS_BATCH_JOB_ARRAY_INDEX, AWS_BATCH_JOB_ARRAY_SIZE
//   parallel    PARALLEL_SEQ (GNU parallel); the number of jobs must be stated
//
// `launcher` is one of these names, or "auto": all are asked, and those that know of several
// processes must agree. `stated` is how many processes the user says there are (where he does not,
// OCELLI_SHARD_COUNT may); launchers that know it must agree with it, and the ids of a Slurm array
// then are 0 … stated - 1, so that a few of them can be submitted again. An array without a stated
// count must be whole and begin at 0 or 1.
//
// Throws UsageError when the environment says nothing, too little, nonsense or two things.
LaunchedProcess launched_as(std::string_view launcher, std::optional<int> stated,
                            const Environment& environment);

}  // namespace ocelli::app
