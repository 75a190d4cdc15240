// A Slurm cluster of one node with its own configuration, in a folder of its own and on free ports
// of the loopback interface. It needs no rights, and nothing of it is left.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pwd.h>
#include <sys/socket.h>

#include <list>
#include <random>

#include "tests/app/background.h"

namespace ocelli::app {

class OneNodeSlurm {
 public:
  static std::string missing() {
    return missing_program({"munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol"});
  }

  OneNodeSlurm() {
    for (const char* name : {"state", "spool"}) fs::create_directory(folder_ / name);
    write_key();
    write_file(folder_ / "slurm.conf", configuration());
    const std::string munge = path("munge");
    start("munged --foreground --force --num-threads=1 --key-file=" + munge +
          ".key --socket=" + munge + ".socket --pid-file=" + munge + ".pid --log-file=" + munge +
          ".log --seed-file=" + munge + ".seed");
    start("slurmctld -D -f " + path("slurm.conf"));
    start("slurmd -D -f " + path("slurm.conf"));
  }
  // The last is stopped first.
  ~OneNodeSlurm() {
    if (running_) shell("scancel --quiet --state=RUNNING,PENDING --user=$(id -un)");
    while (!daemons_.empty()) daemons_.pop_back();
  }
  OneNodeSlurm(const OneNodeSlurm&) = delete;
  OneNodeSlurm& operator=(const OneNodeSlurm&) = delete;

  // Whether the node takes jobs, within a minute.
  bool wait_for_node() {
    running_ =
        wait_until([&] { return shell("sinfo --noheader --format=%T | grep -q idle") == 0; });
    return running_;
  }

  // For the shell: where Slurm's programs find this cluster.
  std::string setting() const { return "export SLURM_CONF=" + path("slurm.conf"); }
  std::string log() const { return read_file(folder_ / "log"); }

 private:
  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  void start(const std::string& command) {
    daemons_.emplace_back("PATH=$PATH:/usr/sbin:/sbin; exec " + command, folder_ / "log");
  }

  int shell(const std::string& command) const {
    Background run(setting() + "; exec timeout 10 bash -c '" + command + "'", folder_ / "client");
    return run.wait();
  }

  void write_key() const {
    std::random_device random;
    std::string key;
    for (int i = 0; i < 128; ++i) key += static_cast<char>(random());
    write_file(folder_ / "munge.key", key);
    fs::permissions(folder_ / "munge.key", fs::perms::owner_read | fs::perms::owner_write);
  }

  // A port that nobody listened on just now.
  static int free_port() {
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    bind(listener, reinterpret_cast<sockaddr*>(&address), size);
    getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
    close(listener);
    return ntohs(address.sin_port);
  }

  std::string configuration() const {
    char host[256] = {};
    gethostname(host, sizeof host - 1);
    const std::string node = std::string(host).substr(0, std::string(host).find('.'));
    const std::string user = getpwuid(geteuid())->pw_name;
    const std::string ports = "SlurmctldPort=" + std::to_string(free_port()) +
                              "\nSlurmdPort=" + std::to_string(free_port()) + "\n";
    return "ClusterName=test\nSlurmctldHost=" + node + "(127.0.0.1)\n" + ports +
           "SlurmUser=" + user + "\nSlurmdUser=" + user +
           "\nAuthType=auth/munge\nAuthInfo=socket=" + path("munge.socket") +
           "\nCommunicationParameters=NoCtldInAddrAny,NoInAddrAny"
           "\nStateSaveLocation=" +
           path("state") + "\nSlurmdSpoolDir=" + path("spool") +
           "\nSlurmctldPidFile=" + path("slurmctld.pid") + "\nSlurmdPidFile=" + path("slurmd.pid") +
           "\nMailProg=/bin/true\nMpiDefault=none\nProctrackType=proctrack/linuxproc"
           "\nTaskPlugin=task/none\nSelectType=select/cons_tres\nSelectTypeParameters=CR_Core"
           // Four processors and their memory are taken for granted, whatever the machine has.
           "\nSlurmdParameters=config_overrides\nReturnToService=2\nNodeName=" +
           node +
           " NodeAddr=127.0.0.1 CPUs=4 RealMemory=64000"
           "\nPartitionName=all Nodes=" +
           node + " Default=YES State=UP MaxTime=600\n";
  }

  TemporaryFolder folder_;
  std::list<Background> daemons_;
  bool running_ = false;
};

}  // namespace ocelli::app
