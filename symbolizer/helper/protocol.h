// SPDX-License-Identifier: Apache-2.0
// What agent and helper say to each other: datagrams of fixed size on a SOCK_SEQPACKET pair, one
// question at a time answered in order; descriptors travel beside them (SCM_RIGHTS). While it
// builds lines the helper may ask back for a .dwo file, whose name only it knows. Both ends are the
// same build of the same program, so there is no negotiation, only a check.
#pragma once

#include <cstddef>
#include <cstdint>

namespace firewatch::symbolizer {

inline constexpr uint32_t kHelperMagic = 0x46574831;  // "FWH1"

// First message, agent to helper.
struct HelperConfig {
  uint32_t magic = kHelperMagic;
  uint32_t max_cpu_seconds = 0;  // per request
  uint64_t max_bytes = 0;        // private memory
};

// The helper's reply, sent from inside the sandbox. Bits of `sandbox` are SandboxBit's.
struct HelperHello {
  uint32_t magic = kHelperMagic;
  uint32_t sandbox = 0;
};

enum class HelperOperation : uint32_t {
  kIdentify = 1,    // kHelperElf: headers, notes and links only
  kBuild = 2,       // kHelperElf or kHelperDebug or both, kHelperOutput: the index, symbols only
  kTable = 3,       // kHelperElf, kHelperOutput: the unwind table
  kBuildLines = 4,  // as kBuild, and what else there is: the index with lines
  kOpenDwo = 5,     // agent's answer to a HelperDwoQuestion: kHelperElf or nothing
  kStrip = 6,       // kHelperElf or kHelperDebug, kHelperOutput: a copy without code (debug_copy.h)
};

// Which descriptors come with a request, in this order. All but two are read only.
enum HelperFd : uint32_t {
  kHelperElf = 1,     // the file that runs
  kHelperOutput = 2,  // an empty file
  kHelperDebug = 4,   // the separate debug file
  kHelperAlt = 8,     // dwz's common file
  kHelperDwp = 16,    // the package of split DWARF
  kHelperScratch =
      32,  // an empty unlinked file for inflated sections; without it: memory (a memfd)
};
inline constexpr size_t kMaxHelperFds = 6;

struct HelperRequest {
  uint32_t magic = kHelperMagic;
  HelperOperation operation = HelperOperation::kIdentify;
  uint64_t sequence = 0;
  uint32_t fds = 0;      // HelperFd bits
  uint32_t may_ask = 0;  // kBuildLines: HelperDwoQuestion is answered
};

enum class HelperStatus : uint32_t {
  kOk = 0,
  kRefused = 1,     // not an ELF file for us, malformed, or larger than the limits
  kUnreadable = 2,  // the file could not be read
  kNotWritten = 3,  // the output could not be written
  kOverBudget = 4,  // needs more memory than the helper may have
};

// kTable: why FDEs have no rows, by CfiReason of unwind/cfi_reader.h.
inline constexpr uint32_t kHelperReasons = 24;

inline constexpr size_t kMaxHelperSegments = 8;
struct HelperSegment {
  uint64_t file_offset = 0;
  uint64_t file_size = 0;
  uint64_t vaddr = 0;
};

enum HelperFlag : uint32_t {
  kHelperSymtab = 1,      // has .symtab
  kHelperDynsym = 2,      // has .dynsym
  kHelperDwarf = 4,       // has .debug_info itself
  kHelperMayBeSplit = 8,  // has .debug_addr: look for a .dwp
  kHelperCommon = 16,     // kIdentify, kStrip: dwz's common file
};

// The facts are those of the file that runs; of the debug file when that is not there. Text is
// NUL-padded, a stranger's, and may be any bytes. A name that is too long is left out.
struct HelperAnswer {
  uint32_t magic = kHelperMagic;
  HelperOperation operation = HelperOperation::kIdentify;
  uint64_t sequence = 0;
  HelperStatus status = HelperStatus::kOk;
  uint8_t has_pseudo_id = 0;  // `id` is a hash of size, first and last 4 KiB
  uint8_t id_size = 0;
  uint8_t id[20] = {};
  uint8_t lines_state = 0;  // LinesState
  uint8_t altlink_id_size = 0;
  uint64_t file_bytes = 0;
  uint64_t symbol_count = 0;
  char reason[128] = {};  // when the status is not kOk; else why there are no lines, or fewer
  uint64_t fdes = 0;      // kTable
  uint64_t rows = 0;
  uint64_t rows_no_rule = 0;
  uint32_t fde_reasons[kHelperReasons] = {};

  uint32_t flags = 0;  // HelperFlag
  uint32_t debuglink_crc = 0;
  char debuglink[256] = {};  // a file name; "" none
  char altlink[512] = {};    // a path; "" none
  uint8_t altlink_id[20] = {};
  uint32_t segment_count = 0;  // executable ones; more than fit are left out
  HelperSegment segments[kMaxHelperSegments] = {};
  uint64_t index_bytes = 0;
  uint64_t dwarf_bytes = 0;     // kBuildLines: of the sections that were read
  uint64_t inflated_bytes = 0;  // of those, what was compressed
  uint64_t line_rows = 0;
  uint64_t units_bad = 0;
  uint64_t units_without_dwo = 0;
};
static_assert(sizeof(HelperAnswer) ==
              192 + 24 + 4 * kHelperReasons + 8 + 256 + 512 + 24 + 24 * kMaxHelperSegments + 48);

// Amid a kBuildLines: asks the agent for a .dwo file by the names of a skeleton unit. The helper
// may be a stranger's by now: the agent opens nothing but what the file's own process could.
struct HelperDwoQuestion {
  uint32_t magic = kHelperMagic;
  uint32_t padding = 0;
  uint64_t sequence = 0;  // of the request
  char name[1024] = {};
  char directory[1024] = {};
};
static_assert(sizeof(HelperDwoQuestion) != sizeof(HelperAnswer));  // told apart by size

}  // namespace firewatch::symbolizer
