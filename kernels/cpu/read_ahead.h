// What a thread pool's threads fetch while they wait: what followed a product the last time.
#pragma once

#include <cstddef>
#include <vector>

#include "host/thread_pool.h"

namespace ocelli::kernels::cpu {

class ReadAhead {
 public:
  // The pool must outlive it.
  explicit ReadAhead(host::ThreadPool& pool) : pool_(pool) {}

  // A number for a weight matrix.
  int number() {
    followers_.emplace_back();
    return static_cast<int>(followers_.size()) - 1;
  }

  // The product with matrix `id` comes next; start_of(thread) is where a thread begins to read it.
  template <typename StartOf>
  void announce(int id, const StartOf& start_of) {
    if (last_ >= 0 && followers_[last_].id != id) {
      Follower& follower = followers_[last_];
      follower.id = id;
      follower.starts.resize(pool_.size());
      for (int i = 0; i < pool_.size(); ++i) follower.starts[i] = start_of(i);
    }
    last_ = id;
    pool_.expect(followers_[id].starts);
  }

 private:
  // What came after a matrix, and where its threads began to read.
  struct Follower {
    int id = -1;
    std::vector<const std::byte*> starts;
  };

  host::ThreadPool& pool_;
  std::vector<Follower> followers_;  // of each matrix, by its number
  int last_ = -1;                    // the one that was read last
};

}  // namespace ocelli::kernels::cpu
