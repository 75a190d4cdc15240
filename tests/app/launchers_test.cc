// The job files for Open MPI and GNU parallel with the real launchers; those for Kubernetes and AWS
// Batch with the variables that these set.
#include "app/terminal.h"
#include "tests/app/sharded_job.h"

namespace ocelli::app {
namespace {

using nlohmann::json;

constexpr int kPhotos = 10;

TEST(Launchers, OpenMpi) {
  if (const std::string program = missing_program({"mpirun"}); !program.empty()) {
    GTEST_SKIP() << program << " is not installed (Debian: openmpi-bin)";
  }
  const ShardedJob job(kPhotos);
  EXPECT_EQ(job.run("mpirun --version | grep -q 'Open MPI'"), 0) << "mpirun is another MPI's";
  EXPECT_EQ(job.run(job_file("mpirun.sh")), 0) << job.log();
  job.expect_whole();
}

// SIGTERM to the job file lets every process finish what it has in hand.
TEST(Launchers, OpenMpiThatIsStoppedGoesOn) {
  if (const std::string program = missing_program({"mpirun"}); !program.empty()) {
    GTEST_SKIP() << program << " is not installed (Debian: openmpi-bin)";
  }
  const ShardedJob job(16);
  const std::string command =
      job.setting() + "; " + ShardedJob::slowly() + "exec " + job_file("mpirun.sh");
  {
    Background first(command, job.log_path());
    // mpirun hangs when a process ends before all have been started.
    for (int index = 1; index <= ShardedJob::kShards; ++index) {
      ASSERT_TRUE(wait_until([&] { return fs::exists(job.journal(index)); })) << job.log();
    }
    first.signal(SIGTERM);
    EXPECT_EQ(first.wait(), kRetryExit) << job.log();
  }
  EXPECT_FALSE(fs::exists(job.output()));
  EXPECT_NE(job.log().find("the same command goes on from here"), std::string::npos) << job.log();
  EXPECT_EQ(job.run(job_file("mpirun.sh")), 0) << job.log();
  EXPECT_EQ(job.run("ocelli merge --check -r --inputs photos -- captions.part-*.jsonl"), 0);
}

TEST(Launchers, GnuParallel) {
  if (const std::string program = missing_program({"parallel"}); !program.empty()) {
    GTEST_SKIP() << program << " is not installed (Debian: parallel)";
  }
  const ShardedJob job(kPhotos);
  if (job.run("parallel --version | grep -q 'GNU parallel'") != 0) {
    GTEST_SKIP() << "parallel is another program than GNU's (Debian: parallel)";
  }
  EXPECT_EQ(job.run(job_file("parallel.sh")), 0) << job.log();
  job.expect_whole();
  // A shard that failed is done again, and no other.
  std::string joblog = read_file(job.output() + ".joblog");
  const std::string shard = "--shard 3/4";
  const size_t line = joblog.rfind('\n', joblog.find(shard)) + 1;
  joblog.erase(line, joblog.find('\n', line) + 1 - line);
  write_file(job.output() + ".joblog", joblog);
  fs::remove(job.part(3));
  const size_t before = job.log().size();
  EXPECT_EQ(job.run(job_file("parallel.sh")), 0) << job.log();
  const std::string again = job.log().substr(before);
  EXPECT_NE(again.find("shard 3/4: "), std::string::npos) << again;
  EXPECT_EQ(again.find("shard 2/4: "), std::string::npos) << again;
  job.expect_whole();
}

TEST(Launchers, GnuParallelNumbersItsJobs) {
  if (const std::string program = missing_program({"parallel"}); !program.empty()) {
    GTEST_SKIP() << program << " is not installed (Debian: parallel)";
  }
  const ShardedJob job(kPhotos);
  EXPECT_EQ(job.run("parallel -n0 ocelli caption -q -r photos -o captions.jsonl --shard auto/4 "
                    "::: 1 2 3 4 && ocelli merge -q -o captions.jsonl"),
            0)
      << job.log();
  job.expect_whole();
}

// Runs the command of a container for every index, with the variables that its launcher sets.
void run_containers(const ShardedJob& job, const json& command, const std::string& variables) {
  for (int index = 0; index < ShardedJob::kShards; ++index) {
    std::string line = variables + std::to_string(index);
    for (std::string word : command.get<std::vector<std::string>>()) {
      // The volume, and a number of shards that suits ten photos.
      if (word.starts_with("/data/")) word = word.substr(6);
      if (word == "auto/8") word = "auto/4";
      line += " '" + word + "'";
    }
    EXPECT_EQ(job.run(line), 0) << job.log();
  }
  EXPECT_EQ(job.run("ocelli merge -q -o captions.jsonl"), 0) << job.log();
  job.expect_whole();
}

TEST(Launchers, KubernetesIndexedJob) {
  const std::string yaml = read_file(job_file("kubernetes.yaml"));
  const std::string key = "command: ";
  const size_t begin = yaml.find(key) + key.size();
  const json command = json::parse(yaml.substr(begin, yaml.find('\n', begin) - begin));
  // What has to agree within the file, and with the program.
  EXPECT_NE(yaml.find("completions: 8\n"), std::string::npos);
  EXPECT_NE(command.dump().find("\"auto/8\""), std::string::npos) << command;
  EXPECT_NE(yaml.find("values: [" + std::to_string(kRetryExit) + "]"), std::string::npos);
  const ShardedJob job(kPhotos);
  run_containers(job, command, "JOB_COMPLETION_INDEX=");
}

TEST(Launchers, AwsBatchArray) {
  const json definition = json::parse(read_file(job_file("aws-batch.json")));
  const json& retries = definition["retryStrategy"]["evaluateOnExit"];
  EXPECT_EQ(retries[0]["onExitCode"], std::to_string(kRetryExit));
  EXPECT_EQ(retries[0]["action"], "RETRY");
  const ShardedJob job(kPhotos);
  run_containers(job, definition["containerProperties"]["command"],
                 "AWS_BATCH_JOB_ARRAY_SIZE=4 AWS_BATCH_JOB_ARRAY_INDEX=");
}

// The page shows the files as they are.
TEST(Launchers, AreDescribedWithTheFilesThatAreTested) {
  const std::string page = read_file(source_path("docs/cluster.md"));
  size_t files = 0;
  for (const auto& entry : fs::directory_iterator(source_path("docs/cluster"))) {
    ++files;
    EXPECT_NE(page.find(read_file(entry.path())), std::string::npos) << entry.path();
  }
  EXPECT_EQ(files, 6U);
}

}  // namespace
}  // namespace ocelli::app
