// SPDX-License-Identifier: Apache-2.0
// From an ELF file to the rows of its unwind table:
//
// 1. Find .eh_frame (by section headers, or through PT_GNU_EH_FRAME when they are stripped) and
//    .debug_frame. The search table of .eh_frame_hdr is not used: it may be absent or wrong.
// 2. FDEs to ranges of file offsets by the executable PT_LOADs, sorted.
// 3. Overlaps: an FDE of .debug_frame that meets one of .eh_frame is dropped; of FDEs with one
// start
//    the first in the section stays; any other ends where the next begins.
// 4. The entry point, where no FDE covers it (old crt files, musl's, ld.so's _start): a proven
// root,
//    up to the next FDE or 128 bytes.
// 5. Each FDE to rows, rows to rules, equal neighbours merged, a NONE row behind a function unless
//    the next one starts there, or up to 8 bytes later at a multiple of 16.
// 6. What lies between functions without CFI of its own: slots of a PLT (lld writes no CFI for
//    them), and functions whose instructions say surely where their callers are (code_rows.h):
//    _init, zstd's decoders, the moment after the system call in clone.
//
// Time and memory are linear in the bytes of the sections (about 8 bytes per row, 64 per FDE).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "symbolizer/elf/elf_reader.h"
#include "symbolizer/unwind/cfi_reader.h"
#include "symbolizer/unwind/table_writer.h"

namespace firewatch::symbolizer {

inline constexpr uint64_t kMaxCfiBytes = uint64_t{256} << 20;
inline constexpr size_t kMaxTableRows = size_t{1} << 25;
inline constexpr uint64_t kEntryRootBytes = 128;

struct CodeSegment {
  uint64_t vaddr = 0;
  uint64_t size = 0;
  uint64_t file_offset = 0;
};

// Code that has no CFI (step 6).
struct BareCode {
  enum class Kind : uint8_t {
    kFunctions,  // read by code_rows.h
    kPlt,        // a first slot that all others jump to, then slots of 16 bytes
    kIplt,       // slots only
    kStubs,      // jumps only: the return address is where the call left it
  };
  struct Section {
    uint64_t offset = 0;  // in the file
    uint64_t size = 0;
    Kind kind = Kind::kFunctions;
  };
  std::vector<Section> sections;  // executable ones, ascending, not overlapping
  // Bytes of the file, valid until the next call; empty when they cannot be read. Not set: step 6
  // is left out. Called with ascending offsets.
  std::function<std::span<const std::byte>(uint64_t offset, uint64_t size)> read;
};
inline constexpr uint64_t kMaxBareCodeBytes = uint64_t{1} << 20;  // looked at per file

// How often a CFA is based on a register, other than by *(reg + n): which ones matter.
struct CfaBaseUse {
  uint64_t rows = 0;
  uint64_t functions = 0;
};

struct UnwindBuild {
  TableSource source;  // without id and size of the file
  uint64_t reasons[kCfiReasonCount] = {};
  uint64_t unsaid[static_cast<size_t>(UnsaidPart::kCount)] = {};
  CfaBaseUse bases[FW_REGISTER_COUNT];
  uint64_t bare_functions = 0;  // of step 6
  bool entry_is_root = false;   // step 4 applied
};

// NotFound: no CFI at all; else as ElfReader, ResourceExhausted past the limits above. Broken CFI
// is no error: what is refused is counted.
absl::StatusOr<UnwindBuild> BuildUnwindTable(const ElfReader& elf);

// Steps 2 to 5. `sections`: .eh_frame before .debug_frame. `entry` 0: none.
UnwindBuild BuildRows(std::span<const CfiSection> sections, std::span<const CodeSegment> code,
                      uint64_t entry, BareCode bare = {});

}  // namespace firewatch::symbolizer
