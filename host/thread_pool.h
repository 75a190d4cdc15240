// A fixed team of threads that runs one loop at a time: the only threads of the token loop.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace ocelli::host {

// Threads wait by spinning for some microseconds, then sleep in the kernel: a core that is taken
// away delays its own task alone. Tasks are handed out one by one, so a slow thread takes fewer of
// them.
class ThreadPool {
 public:
  // A team of `threads`, the caller of parallel_for included; at least 1. Throws Error when the
  // system does not give as many.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

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
  void run(int count, const void* context, Function function);
  void work(int thread);
  void worker_loop(int thread);
  void stop();

  std::vector<std::thread> workers_;
  // The loop in hand; written by the caller before it raises generation_.
  const void* context_ = nullptr;
  Function function_ = nullptr;
  int count_ = 0;
  std::atomic<int> next_{0};
  std::atomic<int> running_{0};
  std::atomic<uint32_t> generation_{0};
  std::atomic<bool> stopping_{false};
};

// The number of processors this process may run on.
int available_processors();

}  // namespace ocelli::host
