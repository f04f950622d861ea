// SPDX-License-Identifier: Apache-2.0
// Finds and reads an ELF file's call frame information.
#pragma once

#include <cstddef>
#include <deque>
#include <vector>

#include "absl/status/statusor.h"
#include "symbolizer/elf/elf_reader.h"
#include "symbolizer/unwind/cfi_reader.h"

namespace firewatch::symbolizer {

struct CfiSections {
  std::deque<std::vector<std::byte>> bytes;
  std::vector<CfiSection> sections;  // .eh_frame first; point into `bytes`
};

// `elf` must outlive the result (DW_EH_PE_indirect reads it). NotFound when there is neither
// section; ResourceExhausted past `max_bytes`. A compressed .debug_frame counts as none: no linker
// of a distribution writes one into a file that runs.
absl::StatusOr<CfiSections> ReadCfiSections(const ElfReader& elf, uint64_t max_bytes);

}  // namespace firewatch::symbolizer
