// Programs that run beside a test, and end with it whatever becomes of it.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <functional>
#include <thread>
#include <utility>

#include "tests/app/command.h"

namespace ocelli::app {

// Looks again and again whether `holds`; false when it does not within a minute.
inline bool wait_until(const std::function<bool()>& holds) {
  constexpr auto kPatience = std::chrono::seconds(60);
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

// `ocelli ARGUMENTS` beside the test, its input and output in files.
class RunningOcelli {
 public:
  explicit RunningOcelli(const std::string& arguments, const std::string& input = "") {
    write_file(folder_ / "in", input);
    const std::string command = fmt::format("exec '{}' {} <'{}' >'{}' 2>'{}'", OCELLI_BINARY,
                                            arguments, (folder_ / "in").string(),
                                            (folder_ / "out").string(), (folder_ / "err").string());
    process_ = fork();
    if (process_ == 0) {
      execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
      _exit(127);
    }
  }
  ~RunningOcelli() {
    if (process_ > 0) {
      send(SIGKILL);
      wait();
    }
  }
  RunningOcelli(const RunningOcelli&) = delete;
  RunningOcelli& operator=(const RunningOcelli&) = delete;

  void send(int signal) const { kill(process_, signal); }
  bool answers() const { return !read_file(folder_ / "out").empty(); }
  bool says(const std::string& text) const {
    return read_file(folder_ / "err").find(text) != std::string::npos;
  }
  // Waits for the end.
  Finished wait() {
    int status = 0;
    waitpid(process_, &status, 0);
    process_ = -1;
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return {code, read_file(folder_ / "out"), read_file(folder_ / "err")};
  }

 private:
  TemporaryFolder folder_;
  pid_t process_ = -1;
};

// `bash -c COMMAND`, whose output goes to a file. The destructor asks it to end (SIGTERM); what is
// left of it and of the programs it started is killed then, or when the test process ends.
class Background {
 public:
  Background(const std::string& command, const fs::path& log) {
    const pid_t parent = getpid();
    process_ = group_ = fork();
    if (process_ != 0) return;
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    guard(getpid(), parent);
    const int output = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    execl("/bin/bash", "bash", "-c", command.c_str(), nullptr);
    _exit(127);
  }
  ~Background() {
    stop();
    kill(-group_, SIGKILL);
  }
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  void signal(int number) const {
    if (process_ > 0) kill(process_, number);
  }
  // Waits for its end; the exit code, 128 + n when signal n ended it.
  int wait() {
    if (process_ > 0) {
      waitpid(std::exchange(process_, 0), &status_, 0);
    }
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
  }
  void stop() {
    signal(SIGTERM);
    const bool ended = wait_until([this] {
      if (process_ > 0 && waitpid(process_, &status_, WNOHANG) == process_) process_ = 0;
      return process_ == 0;
    });
    if (!ended) signal(SIGKILL);
    wait();
  }

 private:
  // Kills the group of processes when its first one, or the test, is no longer there.
  static void guard(pid_t group, pid_t parent) {
    if (fork() != 0) return;
    setsid();
    close_range(0, ~0U, 0);
    while (kill(parent, 0) == 0 && kill(group, 0) == 0) usleep(100'000);
    kill(-group, SIGKILL);
    _exit(0);
  }

  pid_t process_ = 0;  // until it has ended
  pid_t group_ = 0;
  int status_ = 0;
};

// The first of these programs that is not installed; empty when all are.
inline std::string missing_program(const std::vector<std::string>& programs) {
  for (const std::string& program : programs) {
    const std::string look = "PATH=$PATH:/usr/sbin:/sbin command -v " + program + " >/dev/null";
    if (std::system(look.c_str()) != 0) return program;
  }
  return "";
}

}  // namespace ocelli::app
