// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/fallback_record.h"

#include <cstring>

#include "base/status.h"

namespace firewatch::agent {
namespace {

struct Fixed {  // IP, TID, TIME, CPU
  uint64_t ip;
  uint32_t pid;
  uint32_t tid;
  uint64_t time_ns;
  uint32_t cpu;
  uint32_t reserved;
};
static_assert(sizeof(Fixed) == 32);

template <typename T>
bool Take(std::span<const std::byte>& bytes, T& out) {
  if (bytes.size() < sizeof(T)) return false;
  std::memcpy(&out, bytes.data(), sizeof(T));
  bytes = bytes.subspan(sizeof(T));
  return true;
}

bool TakeBytes(std::span<const std::byte>& bytes, uint64_t size, std::span<const std::byte>& out) {
  if (size > bytes.size()) return false;
  out = bytes.first(size);
  bytes = bytes.subspan(size);
  return true;
}

// The kernel's order (ax bx cx dx si di bp sp ip r8..r15) to DWARF numbers.
constexpr std::array<uint8_t, 17> kDwarfNumber = {0, 3, 2,  1,  4,  5,  6,  7, 16,
                                                  8, 9, 10, 11, 12, 13, 14, 15};

}  // namespace

absl::StatusOr<FallbackRecord> ParseFallbackRecord(std::span<const std::byte> bytes) {
  const auto malformed = [](const char* part) {
    return base::InvalidArgument("perf sample: {} past its end", part);
  };
  const size_t given = bytes.size();
  perf_event_header header;
  Fixed fixed;
  if (!Take(bytes, header) || header.size != given || !Take(bytes, fixed)) {
    return malformed("header");
  }
  FallbackRecord record{
      .time_ns = fixed.time_ns, .pid = fixed.pid, .tid = fixed.tid, .cpu = fixed.cpu};
  record.in_kernel = (header.misc & PERF_RECORD_MISC_CPUMODE_MASK) == PERF_RECORD_MISC_KERNEL;
  uint64_t chain = 0;
  if (!Take(bytes, chain) || chain > given / 8 || !TakeBytes(bytes, chain * 8, record.call_chain)) {
    return malformed("call chain");
  }
  uint64_t abi = 0;
  if (!Take(bytes, abi)) return malformed("registers");
  if (abi != PERF_SAMPLE_REGS_ABI_NONE) {
    record.abi = abi == PERF_SAMPLE_REGS_ABI_64 ? RegisterAbi::k64 : RegisterAbi::k32;
    for (const uint8_t number : kDwarfNumber) {
      if (!Take(bytes, record.registers[number])) return malformed("registers");
    }
  }
  uint64_t size = 0;
  if (!Take(bytes, size)) return malformed("stack");
  if (size == 0) return record;
  uint64_t copied = 0;
  if (!TakeBytes(bytes, size, record.stack) || !Take(bytes, copied) || copied > size) {
    return malformed("stack");
  }
  record.stack = record.stack.first(copied);
  record.stack_goes_on = copied == size;
  return record;
}

}  // namespace firewatch::agent
