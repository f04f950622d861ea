// SPDX-License-Identifier: Apache-2.0
// One PERF_RECORD_SAMPLE of the fallback sampler: from bytes to its parts. The layout is
// include/uapi/linux/perf_event.h for kFallbackSampleType.
#pragma once

#include <linux/perf_event.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/statusor.h"

namespace firewatch::agent {

// Its sample_id (behind the process events) is that of the side-band: TID, TIME, CPU.
constexpr uint64_t kFallbackSampleType = PERF_SAMPLE_IP | PERF_SAMPLE_TID | PERF_SAMPLE_TIME |
                                         PERF_SAMPLE_CPU | PERF_SAMPLE_CALLCHAIN |
                                         PERF_SAMPLE_REGS_USER | PERF_SAMPLE_STACK_USER;

// ax bx cx dx si di bp sp ip, and r8 to r15 (enum perf_event_x86_regs).
constexpr uint64_t kFallbackRegisters = 0x1ff | 0xff0000;

enum class RegisterAbi : uint8_t { kNone, k32, k64 };

// A view into the record.
struct FallbackRecord {
  uint64_t time_ns = 0;
  uint32_t pid = 0;
  uint32_t tid = 0;
  uint32_t cpu = 0;
  bool in_kernel = false;
  RegisterAbi abi = RegisterAbi::kNone;   // kNone: no user memory (kernel thread, exiting)
  std::array<uint64_t, 17> registers{};   // by DWARF number, rip last
  std::span<const std::byte> call_chain;  // 64-bit addresses, with the kernel's markers
  std::span<const std::byte> stack;       // from the stack pointer upwards
  bool stack_goes_on = false;             // the copy is as long as was asked for
};

// `bytes` is one whole record with its header. InvalidArgument when lengths contradict each other.
absl::StatusOr<FallbackRecord> ParseFallbackRecord(std::span<const std::byte> bytes);

}  // namespace firewatch::agent
