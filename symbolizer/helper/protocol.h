// SPDX-License-Identifier: Apache-2.0
// What agent and helper say to each other: datagrams of fixed size on a SOCK_SEQPACKET pair, one
// question at a time answered in order; descriptors travel beside them (SCM_RIGHTS). Both ends are
// the same build of the same program, so there is no negotiation, only a check.
#pragma once

#include <cstdint>

namespace firewatch::symbolizer {

inline constexpr uint32_t kHelperMagic = 0x46574831;  // "FWH1"

// First message, agent to helper.
struct HelperConfig {
  uint32_t magic = kHelperMagic;
  uint32_t max_cpu_seconds = 0;  // per request
  uint64_t max_bytes = 0;        // address space
};

// The helper's reply, sent from inside the sandbox. Bits of `sandbox` are SandboxBit's.
struct HelperHello {
  uint32_t magic = kHelperMagic;
  uint32_t sandbox = 0;
};

enum class HelperOperation : uint32_t {
  kIdentify = 1,  // one descriptor: the ELF file. Reads headers and notes only
  kBuild = 2,     // two descriptors: the ELF file and an empty file for its index
  kTable = 3,     // two descriptors: the ELF file and an empty file for its unwind table
};

struct HelperRequest {
  uint32_t magic = kHelperMagic;
  HelperOperation operation = HelperOperation::kIdentify;
  uint64_t sequence = 0;
};

enum class HelperStatus : uint32_t {
  kOk = 0,
  kRefused = 1,     // not an ELF file for us, malformed, or larger than the limits
  kUnreadable = 2,  // the file could not be read
  kNotWritten = 3,  // the index could not be written
};

// kTable: why FDEs have no rows, by CfiReason of unwind/cfi_reader.h.
inline constexpr uint32_t kHelperReasons = 24;

struct HelperAnswer {
  uint32_t magic = kHelperMagic;
  HelperOperation operation = HelperOperation::kIdentify;
  uint64_t sequence = 0;
  HelperStatus status = HelperStatus::kOk;
  uint8_t has_pseudo_id = 0;  // `id` is a hash of size, first and last 4 KiB
  uint8_t id_size = 0;
  uint8_t id[20] = {};
  uint8_t padding[2] = {};
  uint64_t file_bytes = 0;
  uint64_t symbol_count = 0;
  char reason[128] = {};  // NUL-padded text when the status is not kOk
  uint64_t fdes = 0;      // kTable
  uint64_t rows = 0;
  uint64_t rows_no_rule = 0;
  uint32_t fde_reasons[kHelperReasons] = {};
};
static_assert(sizeof(HelperAnswer) == 192 + 24 + 4 * kHelperReasons);

}  // namespace firewatch::symbolizer
