// The job files of docs/cluster, run on a few photos, and what must come of it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "app/shard.h"
#include "tests/app/background.h"
#include "tests/app/photos.h"

namespace ocelli::app {

// A folder with photos in it, in which a job file writes captions.jsonl and its parts.
class ShardedJob {
 public:
  explicit ShardedJob(int photos) { write_photos(folder_ / "photos", photos); }

  static constexpr int kShards = 4;

  const fs::path& folder() const { return folder_.path(); }
  std::string output() const { return (folder_ / "captions.jsonl").string(); }
  fs::path part(int index) const { return part_path(output(), {index, kShards}); }
  fs::path journal(int index) const { return part_path(output() + ".journal", {index, kShards}); }

  // How the job files learn of all this, for the shell: variables, and this program in the path.
  // The photos' names are relative, so that every run of a test splits them in the same way.
  std::string setting() const {
    return "cd " + folder().string() + " && export PATH='" +
           fs::path(OCELLI_BINARY).parent_path().string() +
           "':$PATH:/usr/sbin PHOTOS=photos OUTPUT=captions.jsonl SHARDS=4 THREADS=1"
           // Of mpirun, which wants to be asked twice, and minds more processes than cores.
           " OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"
           " OMPI_MCA_rmaps_base_oversubscribe=1";
  }
  // A picture takes a while so, and what becomes of it does not depend on the machine.
  static std::string slowly() { return "export OCELLI_ISA=scalar; "; }

  // Runs a shell command in that setting to its end, at most two minutes.
  int run(const std::string& command) const {
    write_file(folder_ / "command.sh", command);
    Background shell(setting() + "; exec timeout --kill-after=5 120 bash command.sh", log_path());
    return shell.wait();
  }
  std::string log() const { return read_file(log_path()); }
  fs::path log_path() const { return folder_ / "log"; }

  // Whether shard `index` has captioned something. A journal begins with what it is, and what is
  // written.
  bool has_captions(int index) const {
    return read_file(journal(index)).find("\"path\"") != std::string::npos;
  }

  // That the parts are whole, that the table is theirs, and that one run gives the same.
  void expect_whole() const {
    EXPECT_EQ(run("ocelli caption -q --recursive photos -o whole.jsonl"), 0) << log();
    EXPECT_EQ(without_times(read_file(output())), without_times(read_file(folder_ / "whole.jsonl")))
        << log();
    EXPECT_EQ(run("ocelli merge --check --compare whole.jsonl --recursive --inputs photos -- "
                  "captions.part-*-of-4.jsonl"),
              0)
        << log();
  }

 private:
  TemporaryFolder folder_;
};

inline std::string job_file(const std::string& name) {
  return source_path("docs/cluster").string() + "/" + name;
}

}  // namespace ocelli::app
