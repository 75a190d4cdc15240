#include "host/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <system_error>

#include "host/error.h"
#include "host/pause.h"

namespace ocelli::host {
namespace {

// About 30 µs of waiting for the others: longer than tasks differ, shorter than a time slice.
constexpr int kSpins = 1000;
// About 250 µs of waiting for the next loop, where there is a core for every thread: longer than it
// takes to choose a token and print it. To be woken costs some 50 µs.
constexpr int kIdleSpins = 8000;
// Memory to fetch while waiting: what a core reads in some three microseconds, and lines at a time.
constexpr int kAheadLines = 1536;
constexpr int kLinesAtOnce = 2;
constexpr int kLine = 64;

// Fetches what a thread will read next into its L2, a little at a time.
class Ahead {
 public:
  explicit Ahead(const std::byte* start) : next_(start), left_(start ? kAheadLines : 0) {}

  // False when nothing is left to fetch.
  bool fetch() {
    if (left_ == 0) return false;
    for (int i = 0; i < kLinesAtOnce; ++i, next_ += kLine) __builtin_prefetch(next_, 0, 2);
    left_ -= kLinesAtOnce;
    return true;
  }

 private:
  const std::byte* next_;
  int left_;
};

// Waits until `value` differs from `old`, and returns it.
template <typename T>
T wait_for_change(const std::atomic<T>& value, T old, int spins, Ahead ahead) {
  for (int i = 0; i < spins; ++i) {
    const T now = value.load(std::memory_order_acquire);
    if (now != old) return now;
    if (!ahead.fetch()) pause_spinning();
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int threads)
    : shares_(std::max(threads, 1)),
      idle_spins_(threads <= available_processors() ? kIdleSpins : kSpins) {
  OCELLI_CHECK(threads >= 1, "{} threads", threads);
  try {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { worker_loop(i); });
  } catch (const std::system_error& error) {
    const size_t started = workers_.size() + 1;
    stop();
    fail("{} threads cannot be started, only {}: {}; ask for fewer", threads, started,
         error.what());
  }
}

ThreadPool::~ThreadPool() {
  stop();
}

void ThreadPool::stop() {
  stopping_ = true;
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

void ThreadPool::run(int count, const void* context, Function function) {
  context_ = context;
  function_ = function;
  count_ = count;
  for (int i = 0; i < size(); ++i) {
    shares_[i].next.store(share_begin(count, i), std::memory_order_relaxed);
  }
  running_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  work(0);
  for (int left = running_.load(std::memory_order_acquire); left > 0;) {
    left = wait_for_change(running_, left, kSpins, Ahead(ahead_ ? ahead_[0] : nullptr));
  }
}

void ThreadPool::take_from(int share, int thread) {
  std::atomic<int>& next = shares_[share].next;
  const int end = share_begin(count_, share + 1);
  // Looked at first: what has nothing left is not written to.
  while (next.load(std::memory_order_relaxed) < end) {
    const int i = next.fetch_add(1, std::memory_order_relaxed);
    if (i < end) function_(context_, i, thread);
  }
}

void ThreadPool::work(int thread) {
  for (int i = 0; i < size(); ++i) take_from((thread + i) % size(), thread);
}

void ThreadPool::worker_loop(int thread) {
  uint32_t seen = 0;
  Ahead ahead(nullptr);
  while (true) {
    seen = wait_for_change(generation_, seen, idle_spins_, ahead);
    if (stopping_) return;
    ahead = Ahead(ahead_ ? ahead_[thread] : nullptr);
    work(thread);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.notify_one();
  }
}

int available_processors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  const int count = CPU_COUNT(&set);
  return count > 0 ? count : 1;
}

}  // namespace ocelli::host
