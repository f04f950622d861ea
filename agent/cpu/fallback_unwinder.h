// SPDX-License-Identifier: Apache-2.0
// From the registers and a copy of the stack of a thread to its frames, by libunwind, in this
// process: the unwinder of the fallback samplers. libunwind reads the copied stack, and the CFI out
// of the mapped files (fallback_image.h), through accessors of ours; it never sees the process,
// which may long be gone. docs/decisions/007 says why foreign CFI is parsed here in this mode only.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "agent/core/process_table.h"
#include "bpf/include/frame.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::agent {

// A thread at the moment of its sample.
struct ThreadState {
  // By DWARF number (unwind_table.h): rax rdx rcx rbx rsi rdi rbp rsp r8..r15, then rip.
  static constexpr size_t kRip = 16;
  std::array<uint64_t, 17> registers{};
  uint64_t stack_start = 0;          // address of the first byte of `stack`
  std::span<const std::byte> stack;  // valid during Unwind
  bool stack_goes_on = false;        // there was more than could be copied
};

// One home thread. `symbolizer` must outlive it. Memory: kMaxSpaces processes with their cached
// rules (about 100 KiB each), kMaxImages open files, 16 MiB of their bytes.
class StackUnwinder {
 public:
  static constexpr size_t kMaxSpaces = 48;
  static constexpr size_t kMaxImages = 192;

  explicit StackUnwinder(symbolizer::Symbolizer& symbolizer);
  ~StackUnwinder();
  StackUnwinder(const StackUnwinder&) = delete;
  StackUnwinder& operator=(const StackUnwinder&) = delete;

  // Appends USER frames, leaf first, by the conventions of bpf/include/frame.h, at most
  // FW_MAX_USER_FRAMES. ROOT is said only when CFI proves it (undefined return address).
  fw_stack_end Unwind(const Process& process, const ThreadState& thread,
                      std::vector<fw_u64>& frames);

  // True when the last walk met an address in no mapping that is known: mappings may have changed.
  bool met_unmapped() const;

  size_t cached_bytes() const;
  void AddFiles(symbolizer::FileSet* kept) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace firewatch::agent
