// Calls into C libraries whose error callback may not return (libjpeg, libpng), made safe in C++.
#pragma once

#include <csetjmp>
#include <cstdio>
#include <type_traits>

namespace ocelli::vision {

// The library's error callback calls give_up(), which returns from run() with false. Neither the
// library nor the callables passed to run() hold anything with a destructor, so none is skipped;
// whatever owns memory lives in the caller of run().
class CGuard {
 public:
  template <typename Call>
  [[gnu::noinline]] bool run(Call call) {
    static_assert(std::is_trivially_destructible_v<Call>);
    if (setjmp(target_) != 0) return false;
    call();
    return true;
  }

  // Only from inside run().
  [[noreturn]] void give_up(const char* message) {
    std::snprintf(message_, sizeof message_, "%s", message);
    std::longjmp(target_, 1);
  }

  // What the last give_up() said.
  const char* message() const { return message_; }

 private:
  std::jmp_buf target_;
  char message_[256] = "";
};

}  // namespace ocelli::vision
