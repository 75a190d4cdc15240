// Standard output, standard error and Ctrl-C, as every command uses them.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace ocelli::app {

// A wrong command line: exit code 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Ends the program with an exit code, everything there was to say having been said.
struct Exit {
  int code;
};
inline constexpr int kInterruptedExit = 130;  // 128 + SIGINT, as shells report it
// EX_TEMPFAIL: what was done is saved, and the same command goes on from there.
inline constexpr int kRetryExit = 75;

// Writes to standard output at once. Throws host::Error when that fails (a full disk, a closed
// pipe).
void print(std::string_view text);

// A prompt on standard error, where it does not mix with answers.
void prompt_for_line(std::string_view text);

// A line on standard error, for people.
void note(std::string_view line);

bool stdin_is_terminal();
bool stderr_is_terminal();

// All of standard input.
std::string read_stdin();

// From here on Ctrl-C raises a flag instead of ending the process; a second one, a tenth of a
// second later or more, ends it.
void catch_interrupts();
// SIGTERM and SIGUSR1, with which batch systems announce that time is up, raise the flag as well,
// however often they come.
void catch_stop_signals();
// Whether the flag is up; clear_interrupt() lowers it.
bool interrupted();
void clear_interrupt();

// Progress on standard error: a bar with rate and time left on a terminal; elsewhere nothing, or
// lines for a log.
class Progress {
 public:
  enum class Rate { kPerSecond, kPerMinute };

  // `unit` is what is counted: "questions".
  Progress(std::string unit, size_t total, bool enabled, Rate rate = Rate::kPerSecond);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Where standard error is no terminal: a line every `seconds` (0: none), which begins with
  // `label`, so that the lines of many processes can be told apart.
  void log(double seconds, std::string label = "");

  // `note` stands behind the rest ("2 failed"). Of `done`, `skipped` took no time worth the name:
  // rate and time left are those of the others.
  void advance(size_t done, size_t skipped = 0, std::string_view note = {});

 private:
  std::string unit_;
  size_t total_;
  bool enabled_;
  bool terminal_;
  Rate rate_;
  double start_;
  double last_shown_;
  double log_seconds_ = 0;
  std::string label_;
};

}  // namespace ocelli::app
