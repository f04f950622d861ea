// SPDX-License-Identifier: Apache-2.0
// The stack of a stopped thread by libunwind (nongnu, 1.6): the independent judge of our own
// unwinder, and the unwinder of the fallback sampler. It reads .eh_frame by its own code from the
// files that the process maps.
//
// libunwind asks for everything through accessors. Ours answer registers from those that the tracer
// has read already and memory from whole pages (process_vm_readv), where libunwind-ptrace makes a
// system call per word: a stack of 900 frames takes 1 instead of some 10 ms.
#pragma once

#include <sys/types.h>
#include <sys/user.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"

namespace firewatch::agent {

struct WalkedFrame {
  uint64_t ip = 0;           // as it is: a return address is the instruction after its call
  uint64_t sp = 0;           // at that point; 0 when the walker does not say
  bool interrupted = false;  // ip is no return address: the leaf, and what a signal interrupted
};

enum class LibunwindEnd : uint8_t {
  kRoot,       // libunwind says that there is no caller
  kTruncated,  // the limit
  kError,      // no unwind information, or a bad read: the rest of the stack is not known
};

// One process, whose mappings it caches; one thread at a time, any thread. Linux closes nothing of
// the process while this lives.
class LibunwindPtrace {
 public:
  static constexpr size_t kMaxFrames = 2048;

  static absl::StatusOr<std::unique_ptr<LibunwindPtrace>> Create(pid_t pid);
  LibunwindPtrace(const LibunwindPtrace&) = delete;
  LibunwindPtrace& operator=(const LibunwindPtrace&) = delete;
  ~LibunwindPtrace();

  // Leaf first; `frames` is cleared. The thread must be stopped (by whomever) and have these
  // registers.
  LibunwindEnd Walk(const user_regs_struct& registers, std::vector<WalkedFrame>* frames,
                    size_t max_frames = kMaxFrames);

  // True when there is unwind information for the address. libunwind guesses by frame pointers
  // where there is none, and does not say so.
  bool HasUnwindInfo(uint64_t ip);

  // After the process has changed its mappings: what is cached may name what stood there before.
  void Flush();

 private:
  struct State;
  explicit LibunwindPtrace(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace firewatch::agent
