// SPDX-License-Identifier: Apache-2.0
// What the running kernel calls things, from its own type information: reasons of drops and resets,
// how many arguments a tracepoint has, which function an address is in.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

struct btf;

namespace firewatch::agent {

// Immutable once loaded; any thread.
class KernelNames {
 public:
  // FailedPrecondition without /sys/kernel/btf/vmlinux. Reads /proc/kallsyms only for Function().
  static absl::StatusOr<std::unique_ptr<KernelNames>> Load();

  // Arguments that a program on this tracepoint gets; nothing when this kernel does not have it.
  std::optional<uint32_t> TracepointArguments(std::string_view name) const;

  // Empty where the kernel has no such list (before 5.17 for drops, 6.10 for resets).
  const std::map<uint32_t, std::string>& drop_reasons() const { return drop_reasons_; }
  const std::map<uint32_t, std::string>& reset_reasons() const { return reset_reasons_; }

  // "TCP_CSUM" for SKB_DROP_REASON_TCP_CSUM; the number as text when there is no name.
  std::string DropReason(uint32_t reason) const;
  std::string ResetReason(uint32_t reason) const;
  // The number of a reason by its short name.
  std::optional<uint32_t> FindDropReason(std::string_view name) const;

  // The kernel's function that `address` is in, or "unknown". Not quick: callers keep the answer.
  static std::string Function(uint64_t address);

 private:
  KernelNames() = default;

  std::map<std::string, uint32_t, std::less<>> tracepoints_;
  std::map<uint32_t, std::string> drop_reasons_;
  std::map<uint32_t, std::string> reset_reasons_;
};

}  // namespace firewatch::agent
