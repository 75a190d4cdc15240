#include "host/thread_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "host/error.h"

namespace ocelli::host {
namespace {

// Runs a loop of `count` and expects every index once, from a thread of the team.
void expect_every_index_once(ThreadPool& pool, int count) {
  std::vector<std::atomic<int>> calls(count);
  std::atomic<int> strangers = 0;
  pool.parallel_for(count, [&](int index, int thread) {
    calls.at(index).fetch_add(1, std::memory_order_relaxed);
    if (thread < 0 || thread >= pool.size()) ++strangers;
  });
  for (int i = 0; i < count; ++i) ASSERT_EQ(calls[i], 1) << i << " of " << count;
  ASSERT_EQ(strangers, 0);
}

TEST(ThreadPools, CallEveryIndexOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    for (const int count : {0, 1, 2, 3, 7, 8, 9, 100, 10'000}) expect_every_index_once(pool, count);
  }
}

TEST(ThreadPools, MayHaveMoreThreadsThanCores) {
  ThreadPool pool(4 * available_processors() + 13);
  for (int i = 0; i < 20; ++i) expect_every_index_once(pool, 1000);
}

TEST(ThreadPools, AreUsedAgainThousandsOfTimes) {
  ThreadPool pool(3);
  int64_t total = 0;  // plain: what tasks wrote must be visible when parallel_for returns
  std::vector<int64_t> sums(3);
  for (int i = 0; i < 5000; ++i) {
    pool.parallel_for(7, [&](int index, int thread) { sums[thread] += index; });
    if (i % 1000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // let them sleep
  }
  for (const int64_t sum : sums) total += sum;
  EXPECT_EQ(total, 5000 * 21);
}

TEST(ThreadPools, LetTheirResultsBeReadPlainly) {
  ThreadPool pool(4);
  std::vector<int> values(997);
  for (int round = 1; round < 200; ++round) {
    pool.parallel_for(997, [&](int index, int) { values[index] += index; });
    for (int i = 0; i < 997; ++i) ASSERT_EQ(values[i], i * round);
  }
}

TEST(ThreadPools, GiveNoTwoTasksTheSameThreadAtOnce) {
  ThreadPool pool(4);
  std::vector<std::atomic<int>> busy(4);
  std::atomic<int> collisions = 0;
  pool.parallel_for(2000, [&](int, int thread) {
    if (busy[thread].exchange(1) != 0) ++collisions;
    busy[thread].store(0);
  });
  EXPECT_EQ(collisions, 0);
}

TEST(ThreadPools, DoNotWaitForASlowTaskToStartTheOthers) {
  ThreadPool pool(2);
  std::atomic<int> others = 0;
  std::atomic<int> seen = -1;
  pool.parallel_for(50, [&](int index, int) {
    if (index != 0) {
      ++others;
      return;
    }
    // Task 0 ends when the other thread has done all the rest.
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (others < 49 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    seen = others.load();
  });
  EXPECT_EQ(seen, 49);
}

TEST(ThreadPools, MayBeToldOfMemoryThatIsNotThere) {
  ThreadPool pool(3);
  const std::vector<std::byte> some(5);
  std::vector<const std::byte*> starts = {some.data(), nullptr,
                                          reinterpret_cast<const std::byte*>(uintptr_t{4096})};
  for (int i = 0; i < 100; ++i) {
    pool.expect(i % 3 == 0 ? std::span<const std::byte* const>() : starts);
    expect_every_index_once(pool, 40);
  }
}

TEST(ThreadPools, GiveNeighboursToTheSameThread) {
  ThreadPool pool(1);
  EXPECT_EQ(pool.share_begin(7, 0), 0);
  ThreadPool three(3);
  for (const int count : {0, 1, 2, 3, 100, 2'000'000'000}) {
    EXPECT_EQ(three.share_begin(count, 0), 0);
    EXPECT_EQ(three.share_begin(count, 3), count);
    for (int i = 0; i < 3; ++i) {
      EXPECT_NEAR(three.share_begin(count, i + 1) - three.share_begin(count, i), count / 3.0, 1);
    }
  }
}

TEST(ThreadPools, AreDestroyedRightAfterALoop) {
  for (int i = 0; i < 300; ++i) {
    std::atomic<int> calls = 0;
    {
      ThreadPool pool(1 + i % 4);
      if (i % 3 != 0) pool.parallel_for(5, [&](int, int) { ++calls; });
    }
    ASSERT_EQ(calls, i % 3 != 0 ? 5 : 0);
  }
}

TEST(ThreadPoolsDeathTest, NeedAThread) {
  EXPECT_DEATH(ThreadPool(0), "0 threads");
}

// In a process of its own, with room for the stacks of some hundred threads.
[[noreturn]] void ask_for_too_many_threads() {
  const rlimit limit = {1 << 30, 1 << 30};
  setrlimit(RLIMIT_AS, &limit);
  try {
    ThreadPool pool(100'000);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    std::exit(0);
  }
  std::exit(1);
}

TEST(ThreadPoolsDeathTest, SayWhenTheSystemHasNoMoreThreads) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers need more address space than the limit leaves";
#endif
  EXPECT_EXIT(ask_for_too_many_threads(), testing::ExitedWithCode(0),
              "100000 threads cannot be started, only [0-9]+");
}

TEST(Processors, AreAtLeastOne) {
  EXPECT_GE(available_processors(), 1);
}

}  // namespace
}  // namespace ocelli::host
