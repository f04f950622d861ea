// SPDX-License-Identifier: Apache-2.0
// The production walk (bpf/unwind.h) with the production tables (built by the sandboxed helper), as
// a host program over a stopped thread of another process: what the kernel side would have made of
// the same moment. Only the mappings come from elsewhere: /proc/PID/maps instead of the VMA tree.
#pragma once

#include <sys/types.h>
#include <sys/user.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bpf/include/frame.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::agent {

struct HostStack {
  std::vector<uint64_t> frames;  // as in a sample record: leaf first, return addresses less one
  fw_stack_end end = FW_STACK_END_NONE;
};

// One process. One thread at a time; Update belongs to the symbolizer's home thread.
class HostUnwinder {
 public:
  static absl::StatusOr<std::unique_ptr<HostUnwinder>> Create(pid_t pid,
                                                              symbolizer::Symbolizer& symbolizer);
  virtual ~HostUnwinder() = default;

  // Reads the executable mappings and waits until the helper has built, or refused, the table of
  // each file. The process may run. Why a file has no table is in TableError.
  virtual absl::Status Update(std::chrono::milliseconds timeout) = 0;
  // False when the executable mappings are not those of the last Update any more.
  virtual bool IsCurrent() const = 0;

  // The thread must be stopped and have these registers.
  virtual HostStack Walk(const user_regs_struct& registers) = 0;

  // The frame of an address inside its call: FILE where a known file is mapped, else USER.
  virtual uint64_t FrameOf(uint64_t address) const = 0;
  // True for an address in executable memory without a file: JIT code.
  virtual bool IsAnonymous(uint64_t address) const = 0;
  virtual bool IsMapped(uint64_t address) const = 0;

  // Of a FILE frame: the path of its file as the process sees it; "" for other frames.
  virtual std::string_view PathOf(uint64_t frame) const = 0;
  // Of a FILE frame: the rule that leads to its caller, in words ("rsp+48, rbp at cfa-16").
  virtual std::string RuleOf(uint64_t frame) const = 0;
  // Of a FILE frame: the function, from the symbolizer (its home thread); "" when not known.
  virtual std::string FunctionOf(uint64_t frame) = 0;

  struct File {
    std::string path;
    std::string table_error;  // "" when it has a table
    uint64_t rows = 0;
  };
  virtual std::vector<File> Files() const = 0;
};

}  // namespace firewatch::agent
