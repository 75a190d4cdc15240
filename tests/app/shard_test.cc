// Which share of a run a process does, by the command line and by what launchers say.
#include "app/shard.h"

#include <map>

#include "app/terminal.h"
#include "tests/app/command.h"

namespace ocelli::app {
namespace {

using Variables = std::map<std::string, std::string>;

Environment environment(const Variables& variables) {
  return [variables](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  };
}

std::string shard_of(const std::string& text, const Variables& variables = {}) {
  return to_text(parse_shard(text, environment(variables)));
}

// Whether the command line is refused, for a reason that holds `reason`.
testing::AssertionResult refuses(const std::string& text, const Variables& variables,
                                 const std::string& reason) {
  try {
    const std::string shard = shard_of(text, variables);
    return testing::AssertionFailure() << text << " means " << shard;
  } catch (const UsageError& error) {
    const std::string message = error.what();
    if (message.find(reason) != std::string::npos) return testing::AssertionSuccess();
    return testing::AssertionFailure() << "\"" << reason << "\" is not in: " << message;
  }
}

Variables slurm_array(const std::string& id, const std::string& min, const std::string& max,
                      const std::string& count) {
  return {{"SLURM_JOB_ID", "77"},        {"SLURM_PROCID", "0"},  // of the batch script
          {"SLURM_ARRAY_TASK_ID", id},   {"SLURM_ARRAY_TASK_MIN", min},
          {"SLURM_ARRAY_TASK_MAX", max}, {"SLURM_ARRAY_TASK_COUNT", count},
          {"SLURM_ARRAY_TASK_STEP", "1"}};
}

Variables with(Variables variables, const Variables& more) {
  for (const auto& [name, value] : more) variables[name] = value;
  return variables;
}

const Variables kStep = {
    {"SLURM_JOB_ID", "77"}, {"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "2"}, {"SLURM_NTASKS", "4"}};

TEST(Shards, AreNumberedFromOne) {
  EXPECT_EQ(shard_of("1/1"), "1/1");
  EXPECT_EQ(shard_of("8/8"), "8/8");
  for (const char* text :
       {"0/8",   "9/8",    "/",     "1/",     "/8",     "1",       "",         "1/8/8",
        " 1/8",  "1/8 ",   "-1/8",  "+1/8",   "01/8",   "1/0",     "1/100001", "99999999999/8",
        "1.0/8", "nobody", "auto/", "auto/0", "auto/x", "auto/8x", "auto/-8",  "nobody/8"}) {
    EXPECT_TRUE(refuses(text, {}, "the first of eight is 1/8")) << text;
  }
}

// The hash is part of the format: `printf %s PATH | sha256sum`, its first 16 digits modulo n.
TEST(Shards, HoldAPathByAHashThatNeverChanges) {
  const auto holder = [](const std::string& path, int count) {
    int found = 0;
    for (int index = 1; index <= count; ++index) {
      if (!Shard{index, count}.holds(path)) continue;
      EXPECT_EQ(found, 0) << path << " is in two shards";
      found = index;
    }
    return found;
  };
  EXPECT_EQ(holder("photos/a.jpg", 8), 8);
  EXPECT_EQ(holder("photos/b.jpg", 8), 7);
  EXPECT_EQ(holder("b.png", 1000), 405);
  EXPECT_EQ(holder("каталог/ё.jpg", 1000), 802);
  EXPECT_EQ(holder("каталог/ё.jpg", 1), 1);
}

TEST(Shards, ShareEvenly) {
  constexpr int kPaths = 8000;
  for (int index = 1; index <= 8; ++index) {
    int held = 0;
    for (int i = 0; i < kPaths; ++i) {
      held += Shard{index, 8}.holds("photos/img_" + std::to_string(i) + ".jpg") ? 1 : 0;
    }
    EXPECT_NEAR(held, kPaths / 8, 120);  // four standard deviations
  }
}

TEST(AutomaticShards, OfAJobStep) {
  EXPECT_EQ(shard_of("auto", kStep), "3/4");
  EXPECT_EQ(shard_of("slurm", kStep), "3/4");
  EXPECT_EQ(shard_of("auto/4", kStep), "3/4");
  EXPECT_TRUE(refuses("auto/8", kStep, "started 4 processes"));
  // srun can speak PMI to its tasks, which is no second launcher.
  EXPECT_EQ(shard_of("auto", with(kStep, {{"PMI_RANK", "2"}, {"PMI_SIZE", "4"}})), "3/4");
}

TEST(AutomaticShards, NotOfABatchScriptThatStartsTheProgramItself) {
  const Variables script = {{"SLURM_JOB_ID", "77"}, {"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}};
  EXPECT_TRUE(refuses("auto", script, "srun"));
  EXPECT_TRUE(refuses("slurm", script, "srun"));
  // What the script starts by mpirun has a rank of its own.
  EXPECT_EQ(shard_of("auto",
                     with(script, {{"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "4"}})),
            "2/4");
}

TEST(AutomaticShards, OfAJobArray) {
  EXPECT_EQ(shard_of("auto", slurm_array("0", "0", "7", "8")), "1/8");
  EXPECT_EQ(shard_of("auto", slurm_array("7", "0", "7", "8")), "8/8");
  EXPECT_EQ(shard_of("auto", slurm_array("3", "1", "8", "8")), "3/8");
  EXPECT_EQ(shard_of("slurm", slurm_array("0", "0", "0", "1")), "1/1");
  // --array=0-6:2
  EXPECT_EQ(
      shard_of("auto", with(slurm_array("4", "0", "6", "4"), {{"SLURM_ARRAY_TASK_STEP", "2"}})),
      "3/4");
  // A script that asks for several tasks and uses them otherwise.
  EXPECT_EQ(shard_of("auto", with(slurm_array("3", "1", "8", "8"), {{"SLURM_NTASKS", "4"}})),
            "3/8");
}

// sbatch --array=3,5 for what failed of 0-7: the count shrinks, and every id would mean other work.
TEST(AutomaticShards, RefuseAFewTasksOfAnArrayThatAreSubmittedAgain) {
  EXPECT_TRUE(refuses("auto", slurm_array("3", "3", "5", "2"), "submitted again"));
  EXPECT_TRUE(refuses("auto", slurm_array("3", "3", "4", "2"), "submitted again"));
  EXPECT_TRUE(refuses("auto", slurm_array("3", "0", "5", "3"), "submitted again"));
  EXPECT_TRUE(refuses("auto", slurm_array("2", "2", "2", "1"), "submitted again"));
  // With the number stated, an id means the same in every submission.
  EXPECT_EQ(shard_of("auto/8", slurm_array("3", "3", "5", "2")), "4/8");
  EXPECT_EQ(shard_of("slurm/8", slurm_array("3", "0", "7", "8")), "4/8");
  EXPECT_EQ(shard_of("auto", with(slurm_array("3", "3", "5", "2"), {{"OCELLI_SHARD_COUNT", "8"}})),
            "4/8");
  // An array from 1 would leave the first shard out, so all of its members refuse.
  EXPECT_TRUE(refuses("auto/8", slurm_array("1", "1", "8", "8"), "0-7"));
  EXPECT_TRUE(refuses("auto/8", slurm_array("9", "9", "9", "1"), "0-7"));
}

TEST(AutomaticShards, RefuseAnArrayThatContradictsItself) {
  EXPECT_TRUE(refuses("auto", slurm_array("9", "0", "7", "8"), "0-7"));
  EXPECT_TRUE(refuses("auto", slurm_array("x", "0", "7", "8"), "SLURM_ARRAY_TASK_ID"));
  EXPECT_TRUE(refuses("auto", slurm_array("3", "0", "7", "-8"), "SLURM_ARRAY_TASK_COUNT"));
  EXPECT_TRUE(refuses("auto", slurm_array("3", "0", "99999999999", "8"), "SLURM_ARRAY_TASK_MAX"));
  EXPECT_TRUE(refuses("auto", {{"SLURM_ARRAY_TASK_ID", "3"}}, "is not set"));
  EXPECT_TRUE(refuses(
      "auto", with(slurm_array("3", "0", "6", "4"), {{"SLURM_ARRAY_TASK_STEP", "2"}}), "0-6:2"));
}

TEST(AutomaticShards, OfStepsInEveryMemberOfAnArray) {
  const Variables both = with(slurm_array("1", "0", "7", "8"), kStep);
  EXPECT_EQ(shard_of("auto", both), "7/32");  // task 2 of 4 of member 1
  EXPECT_EQ(shard_of("auto/32", both), "7/32");
  EXPECT_EQ(shard_of("auto/32", with(slurm_array("1", "1", "2", "2"), kStep)), "7/32");
  EXPECT_TRUE(refuses("auto/30", both, "evenly"));
  EXPECT_TRUE(refuses("auto/16", both, "0-3"));
  EXPECT_TRUE(refuses("auto", with(slurm_array("1", "0", "99999", "100000"), kStep), "more than"));
}

TEST(AutomaticShards, OfMpi) {
  const Variables openmpi = {{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "4"}};
  EXPECT_EQ(shard_of("auto", openmpi), "1/4");
  EXPECT_EQ(shard_of("openmpi/4", openmpi), "1/4");
  EXPECT_EQ(shard_of("auto", {{"PMI_RANK", "3"}, {"PMI_SIZE", "4"}}), "4/4");
  EXPECT_TRUE(refuses("auto", {{"PMI_RANK", "4"}, {"PMI_SIZE", "4"}}, "cannot be"));
  EXPECT_TRUE(refuses("auto", {{"PMI_RANK", "0"}, {"PMI_SIZE", "0"}}, "cannot be"));
  EXPECT_TRUE(refuses("auto", {{"PMI_RANK", "3"}}, "PMI_SIZE is not set"));
  EXPECT_TRUE(refuses("auto", {{"OMPI_COMM_WORLD_SIZE", "3"}}, "OMPI_COMM_WORLD_RANK is not set"));
  EXPECT_TRUE(refuses("pmi", openmpi, "nothing of pmi"));
}

TEST(AutomaticShards, OfKubernetesWhichDoesNotTellTheNumberOfCompletions) {
  const Variables pod = {{"JOB_COMPLETION_INDEX", "7"}};
  EXPECT_EQ(shard_of("auto/8", pod), "8/8");
  EXPECT_EQ(shard_of("kubernetes", with(pod, {{"OCELLI_SHARD_COUNT", "8"}})), "8/8");
  EXPECT_EQ(shard_of("auto/9", with(pod, {{"OCELLI_SHARD_COUNT", "8"}})), "8/9");
  EXPECT_TRUE(refuses("auto", pod, "OCELLI_SHARD_COUNT"));
  EXPECT_TRUE(refuses("auto/7", pod, "cannot be"));
  EXPECT_TRUE(refuses("auto", with(pod, {{"OCELLI_SHARD_COUNT", "0"}}), "wanted 1 to"));
}

TEST(AutomaticShards, OfAwsBatch) {
  const Variables child = {{"AWS_BATCH_JOB_ARRAY_INDEX", "2"}};
  const Variables whole = with(child, {{"AWS_BATCH_JOB_ARRAY_SIZE", "8"}});
  EXPECT_EQ(shard_of("auto", whole), "3/8");
  EXPECT_EQ(shard_of("aws-batch/8", child), "3/8");
  EXPECT_TRUE(refuses("auto/9", whole, "not 9"));
  EXPECT_TRUE(refuses("auto", child, "aws-batch/8"));
}

TEST(AutomaticShards, OfGnuParallelWhichDoesNotTellTheNumberOfJobs) {
  const Variables job = {{"PARALLEL_SEQ", "8"}, {"PARALLEL_JOBSLOT", "2"}};
  EXPECT_EQ(shard_of("auto/8", job), "8/8");
  EXPECT_TRUE(refuses("auto", job, "parallel/8"));
  EXPECT_TRUE(refuses("auto/8", {{"PARALLEL_SEQ", "0"}}, "from 1"));
}

TEST(AutomaticShards, RefuseLaunchersThatDisagree) {
  const Variables two = with(slurm_array("3", "0", "7", "8"),
                             {{"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "4"}});
  EXPECT_TRUE(refuses("auto", two, "slurm says process 3 of 8"));
  EXPECT_TRUE(refuses("auto", two, "openmpi says 1 of 4"));
  EXPECT_EQ(shard_of("slurm", two), "4/8");
  EXPECT_EQ(shard_of("openmpi", two), "2/4");
  // Agreement, and launchers of one process, are no contradiction.
  EXPECT_EQ(shard_of("auto", {{"OMPI_COMM_WORLD_RANK", "1"},
                              {"OMPI_COMM_WORLD_SIZE", "4"},
                              {"PMI_RANK", "1"},
                              {"PMI_SIZE", "4"}}),
            "2/4");
  EXPECT_EQ(
      shard_of("auto", with(kStep, {{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "1"}})),
      "3/4");
  EXPECT_EQ(shard_of("auto", {{"OMPI_COMM_WORLD_RANK", "0"},
                              {"OMPI_COMM_WORLD_SIZE", "1"},
                              {"PMI_RANK", "0"},
                              {"PMI_SIZE", "1"}}),
            "1/1");
}

TEST(AutomaticShards, RefuseSilence) {
  EXPECT_TRUE(refuses("auto", {}, "--shard 2/8"));
  EXPECT_TRUE(refuses("auto/8", {{"JOB_COMPLETION_INDEX", ""}}, "--shard 2/8"));
  EXPECT_TRUE(refuses("kubernetes/8", {}, "nothing of kubernetes"));
}

TEST(Parts, AreNamedAfterTheOutputOfTheWholeRun) {
  EXPECT_EQ(part_path("captions.jsonl", {2, 8}), "captions.part-2-of-8.jsonl");
  EXPECT_EQ(part_path("out.d/my.captions.jsonl", {10, 16}),
            "out.d/my.captions.part-10-of-16.jsonl");
  EXPECT_EQ(part_path("out.d/captions", {1, 1}), "out.d/captions.part-1-of-1");
  for (const char* output :
       {"captions.jsonl", "a/my.captions.jsonl", "/a.b/captions", "part-1.csv"}) {
    const auto name = parse_part_path(part_path(output, {2, 8}));
    ASSERT_TRUE(name) << output;
    EXPECT_EQ(name->output, output);
    EXPECT_EQ(name->shard, (Shard{2, 8}));
  }
  EXPECT_EQ(parse_part_path("x/part-2-of-8.jsonl")->output, "x/captions.jsonl");
}

TEST(Parts, AreToldFromOtherFiles) {
  for (const char* path :
       {"captions.jsonl", "part-0-of-8.jsonl", "part-9-of-8.jsonl", "part-2-of-8.jsonl.tmp",
        "part-02-of-8.jsonl", "part-2-of-.jsonl", "part-2.jsonl", "counterpart-2-of-8.jsonl",
        "a.part-2-of-8x.jsonl", "part-2-of-8/captions.jsonl", "part--2-of-8.jsonl", ""}) {
    EXPECT_FALSE(parse_part_path(path)) << path;
  }
}

TEST(Parts, OfAnotherSplitInTheSamePlaceAreRefused) {
  const TemporaryFolder folder;
  const std::string output = (folder / "captions.jsonl").string();
  write_file(folder / "captions.part-1-of-8.jsonl", "");
  write_file(folder / "others.part-1-of-9.jsonl", "");
  EXPECT_NO_THROW(require_same_split(output, {3, 8}));
  try {
    require_same_split(output, {1, 2});
    FAIL() << "parts of 2 beside parts of 8";
  } catch (const UsageError& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("captions.part-1-of-8.jsonl"), std::string::npos) << message;
    EXPECT_NE(message.find("auto/8"), std::string::npos) << message;
  }
  EXPECT_NO_THROW(require_same_split((folder / "no/such/place.jsonl").string(), {1, 2}));
}

}  // namespace
}  // namespace ocelli::app
