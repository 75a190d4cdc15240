#include "app/terminal.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <utility>

#include "host/error.h"

namespace ocelli::app {
namespace {

// Milliseconds of the steady clock at the first signal; 0: there was none.
std::atomic<int64_t> interrupted_at{0};
static_assert(std::atomic<int64_t>::is_always_lock_free);
// timeout, mpirun and terminals send a signal to the process and to its group: what comes within
// this time is one signal.
constexpr int64_t kOneSignalMs = 100;

int64_t now_milliseconds() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);  // which a signal handler may call
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000 + 1;
}

void on_interrupt(int number) {
  const int64_t now = now_milliseconds();
  int64_t first = 0;
  if (interrupted_at.compare_exchange_strong(first, now)) return;
  if (number != SIGINT || now - first < kOneSignalMs) return;
  std::signal(number, SIG_DFL);
  std::raise(number);
}

void catch_signal(int number) {
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  sigemptyset(&action.sa_mask);
  // No SA_RESTART: a read that waits for a question returns.
  sigaction(number, &action, nullptr);
}

double now_seconds() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

std::string clock_text(double seconds) {
  const auto whole = static_cast<int64_t>(seconds);
  if (whole >= 3600)
    return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

}  // namespace

void print(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(STDOUT_FILENO, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(static_cast<size_t>(written));
    } else if (errno != EINTR) {  // Ctrl-C is for the answer, not for what has been said
      host::fail("standard output: cannot be written: {}", std::strerror(errno));
    }
  }
}

void prompt_for_line(std::string_view text) {
  std::fprintf(stderr, "%.*s", static_cast<int>(text.size()), text.data());
}

void note(std::string_view line) {
  std::fprintf(stderr, "%.*s\n", static_cast<int>(line.size()), line.data());
}

bool stdin_is_terminal() {
  return isatty(STDIN_FILENO) != 0;
}
bool stderr_is_terminal() {
  return isatty(STDERR_FILENO) != 0;
}

std::string read_stdin() {
  std::string all;
  char block[1 << 16];
  for (size_t size = 0; (size = std::fread(block, 1, sizeof block, stdin)) > 0;) {
    all.append(block, size);
  }
  if (std::ferror(stdin)) host::fail("standard input: cannot be read: {}", std::strerror(errno));
  return all;
}

void catch_interrupts() {
  catch_signal(SIGINT);
}

void catch_stop_signals() {
  for (const int number : {SIGINT, SIGTERM, SIGUSR1}) catch_signal(number);
}

bool interrupted() {
  return interrupted_at != 0;
}
void clear_interrupt() {
  interrupted_at = 0;
}

Progress::Progress(std::string unit, size_t total, bool enabled, Rate rate)
    : unit_(std::move(unit)),
      total_(total),
      enabled_(enabled),
      terminal_(stderr_is_terminal()),
      rate_(rate),
      start_(now_seconds()),
      last_shown_(start_) {
}

Progress::~Progress() {
  if (enabled_ && terminal_) std::fprintf(stderr, "\r\033[K");
}

void Progress::log(double seconds, std::string label) {
  log_seconds_ = seconds;
  label_ = std::move(label);
}

void Progress::advance(size_t done, size_t skipped, std::string_view note) {
  constexpr double kBarSeconds = 0.1;
  const double now = now_seconds();
  const double interval = terminal_ ? kBarSeconds : log_seconds_;
  // A log has a summary at its end; a bar must not stop before it.
  const bool last = terminal_ && done >= total_;
  if (!enabled_ || interval <= 0 || (now - last_shown_ < interval && !last)) return;
  last_shown_ = now;
  const size_t timed = done - std::min(done, skipped);
  const double rate = static_cast<double>(timed) / std::max(now - start_, 1e-3);
  const double left = static_cast<double>(total_ - std::min(done, total_)) / std::max(rate, 1e-9);
  const bool minutes = rate_ == Rate::kPerMinute;
  const std::string text = fmt::format(
      "{}/{} {}, {:.1f}/{}, {} left{}{}", done, total_, unit_, minutes ? rate * 60 : rate,
      minutes ? "min" : "s", timed > 0 ? clock_text(left) : "?", note.empty() ? "" : ", ", note);
  if (!terminal_) return app::note(label_ + text);
  constexpr size_t kWidth = 20;  // so that all of it fits 80 columns
  const size_t filled = total_ > 0 ? std::min(done, total_) * kWidth / total_ : kWidth;
  std::fprintf(stderr, "\r\033[K%s%s %s", std::string(filled, '#').c_str(),
               std::string(kWidth - filled, '.').c_str(), text.c_str());
  std::fflush(stderr);
}

}  // namespace ocelli::app
