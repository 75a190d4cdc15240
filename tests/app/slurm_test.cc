// The job files for Slurm on a cluster of one node, which the tests start and stop.
#include <memory>

#include "tests/app/one_node_slurm.h"
#include "tests/app/sharded_job.h"

namespace ocelli::app {
namespace {

class Slurm : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string program = OneNodeSlurm::missing(); !program.empty()) {
      GTEST_SKIP() << program << " is not installed (Debian: slurm-wlm)";
    }
    cluster_ = std::make_unique<OneNodeSlurm>();
    ASSERT_TRUE(cluster_->wait_for_node()) << cluster_->log();
  }

  // Runs a shell command as somebody who is logged in to the cluster.
  int run(const ShardedJob& job, const std::string& command) const {
    return job.run(cluster_->setting() + "; " + command);
  }
  // Submits with these arguments of sbatch.
  void submit(const ShardedJob& job, const std::string& arguments) const {
    ASSERT_EQ(run(job, "sbatch --parsable --cpus-per-task=1 " + arguments + " >id"), 0)
        << job.log();
  }
  // Waits for the end of what was submitted (as `sbatch --wait` does, which looks every eight
  // seconds): the highest exit code of its members, -1 when it does not end.
  int finish(const ShardedJob& job) const {
    const std::string ended = "sleep 0.1; [ -z \"$(squeue --noheader --job $(cat id))\" ]";
    if (!wait_until([&] { return run(job, ended) == 0; })) return -1;
    EXPECT_EQ(run(job, "scontrol show job $(cat id) >jobs"), 0) << job.log();
    const std::string jobs = read_file(job.folder() / "jobs");
    const std::string key = " ExitCode=";
    int highest = -1;
    for (size_t at = 0; (at = jobs.find(key, at)) != std::string::npos; at += key.size()) {
      highest = std::max(highest, std::atoi(jobs.c_str() + at + key.size()));
    }
    return highest;
  }

  std::unique_ptr<OneNodeSlurm> cluster_;
};

TEST_F(Slurm, Array) {
  const ShardedJob job(10);
  submit(job, "--array=0-3 " + job_file("slurm-array.sh"));
  EXPECT_EQ(finish(job), 0) << job.log();
  EXPECT_EQ(job.run("ocelli merge -q -o captions.jsonl"), 0) << job.log();
  job.expect_whole();
  // A member again, which does what it did before.
  fs::remove(job.part(2));
  submit(job, "--array=1 " + job_file("slurm-array.sh"));
  EXPECT_EQ(finish(job), 0) << job.log();
  job.expect_whole();
  // Where the number of shards is not stated, members cannot know.
  submit(job,
         "--array=1,2 --output=guess --wrap "
         "'ocelli caption -r photos -o captions.jsonl --shard auto'");
  EXPECT_EQ(finish(job), 2) << job.log();
  EXPECT_NE(read_file(job.folder() / "guess").find("submitted again"), std::string::npos);
}

// SIGUSR1, as --signal sends it, and the member goes back into the queue.
TEST_F(Slurm, ArrayThatIsStoppedGoesOn) {
  const ShardedJob job(40);  // a member needs seconds, a signal on its way through Slurm up to one
  submit(job, "--array=0-3 --export=ALL,OCELLI_ISA=scalar " + job_file("slurm-array.sh"));
  ASSERT_TRUE(wait_until([&] { return fs::exists(job.journal(1)); })) << job.log();
  EXPECT_EQ(run(job, "scancel --signal=USR1 $(cat id)_0"), 0) << job.log();
  // Slurm lets two minutes pass, of which two seconds will do: a node takes a job again that it was
  // told to stop, but not in the same second.
  const std::string back = "squeue --noheader --format=%r --job $(cat id)_0 | grep -q BeginTime";
  ASSERT_TRUE(wait_until([&] { return run(job, back) == 0; })) << job.log();
  EXPECT_FALSE(fs::exists(job.part(1)));
  EXPECT_EQ(run(job, "scontrol update JobId=$(cat id)_0 StartTime=now+2"), 0) << job.log();
  const int code = finish(job);
  const std::string log = read_file(job.folder() / "captions-1-0.log");
  EXPECT_EQ(code, 0) << job.log() << log << cluster_->log();
  EXPECT_NE(log.find("the same command goes on from here"), std::string::npos) << log;
  EXPECT_EQ(run(job, "ocelli merge --check -r --inputs photos -- captions.part-*.jsonl"), 0)
      << job.log();
}

TEST_F(Slurm, TasksOfOneJob) {
  const ShardedJob job(10);
  submit(job, "--ntasks=4 " + job_file("slurm-srun.sh"));
  EXPECT_EQ(finish(job), 0) << job.log();
  job.expect_whole();
}

}  // namespace
}  // namespace ocelli::app
