// What a thread that spins tells its core: let the sibling thread have the units meanwhile.
#pragma once

namespace ocelli::host {

inline void pause_spinning() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace ocelli::host
