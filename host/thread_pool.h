// A fixed team of threads that runs one loop at a time: the only threads of the token loop.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <thread>
#include <vector>

namespace ocelli::host {

// Threads wait by spinning for a moment, then sleep in the kernel: a core that is taken away delays
// its own task alone. Each thread has a share of the tasks, neighbours in memory for
// most loops, so that it reads on where it was; when it is done it takes from the others' shares,
// task by task.
class ThreadPool {
 public:
  // A team of `threads`, the caller of parallel_for included; at least 1. Throws Error when the
  // system does not give as many.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(shares_.size()); }

  // Where each thread will probably read next, `starts` [size()], or nothing: while it waits for
  // the others or for the next loop it fetches some memory from there on. The list must stay until
  // the next call; nothing needs to be where it points.
  void expect(std::span<const std::byte* const> starts) {
    ahead_ = starts.size() == shares_.size() ? starts.data() : nullptr;
  }
  // The first task of a thread's share of `count`.
  int share_begin(int count, int thread) const {
    return static_cast<int>(int64_t{count} * thread / size());
  }

  // Calls task(index, thread) for every index in [0, count), thread in [0, size()), and returns
  // when all are done. Neither allocates nor throws; task must not throw. One caller at a time.
  template <typename Task>
  void parallel_for(int count, const Task& task) {
    if (count <= 1 || workers_.empty()) {
      for (int i = 0; i < count; ++i) task(i, 0);
      return;
    }
    run(count, &task, [](const void* context, int index, int thread) {
      (*static_cast<const Task*>(context))(index, thread);
    });
  }

 private:
  using Function = void (*)(const void* context, int index, int thread);
  // Tasks handed out of a share: on a line of its own, as only its thread writes it until the end.
  struct alignas(64) Share {
    std::atomic<int> next{0};
  };
  void run(int count, const void* context, Function function);
  void take_from(int share, int thread);
  void work(int thread);
  void worker_loop(int thread);
  void stop();

  std::vector<std::thread> workers_;
  std::vector<Share> shares_;
  const int idle_spins_;  // of a worker that waits for a loop
  // The loop in hand; written by the caller before it raises generation_, and on its line, which
  // workers wait for.
  alignas(64) std::atomic<uint32_t> generation_{0};
  std::atomic<bool> stopping_{false};
  int count_ = 0;
  const void* context_ = nullptr;
  Function function_ = nullptr;
  const std::byte* const* ahead_ = nullptr;
  // What the caller waits for.
  alignas(64) std::atomic<int> running_{0};
};

// The number of processors this process may run on.
int available_processors();

}  // namespace ocelli::host
