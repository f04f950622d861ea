// SPDX-License-Identifier: Apache-2.0
// What one ELF file says of itself and of files that belong to it, from headers, notes and two tiny
// sections: cheap, and enough to look for its debug file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "symbolizer/elf/elf_file.h"
#include "symbolizer/elf/elf_reader.h"
#include "symbolizer/file_identity.h"

namespace firewatch::symbolizer {

struct ObjectFacts {
  BuildId id;  // of the file; when it has none, a hash of size, first and last 4 KiB
  bool has_pseudo_id = false;  // that hash
  bool has_symtab = false;
  bool has_dynsym = false;
  bool has_dwarf = false;     // .debug_info or .zdebug_info
  bool may_be_split = false;  // has .debug_addr: functions may stand in .dwo files or a .dwp
  std::string debuglink;      // of .gnu_debuglink: a file name without directory; "" none
  uint32_t debuglink_crc = 0;
  std::string altlink;  // of .gnu_debugaltlink: a path, absolute or relative to the file; "" none
  BuildId altlink_id;
  uint64_t file_bytes = 0;
  // PT_LOAD with PF_X and bytes in the file: none in what `objcopy --only-keep-debug` leaves.
  std::vector<ElfSegment> executable_segments;
};

// Unavailable when the file cannot be read. Malformed links are no links.
absl::StatusOr<ObjectFacts> ReadObjectFacts(const ElfFile& elf);

// What dwz puts the debug information into that several files share: relocatable in name (open it
// with ElfLimits::allow_relocatable), of no code.
bool IsCommonFile(const ElfReader& elf);

}  // namespace firewatch::symbolizer
