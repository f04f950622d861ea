// SPDX-License-Identifier: Apache-2.0
// Where the .eh_frame_hdr of a mapped ELF object is, read from the memory of its process: so that
// libunwind also finds what has no file (the vdso), no file any more, or a layout of segments that
// its own search does not understand (lld's).
#pragma once

#include <cstdint>
#include <optional>

#include "agent/stacks/remote_memory.h"

namespace firewatch::agent {

struct EhFrameHeader {
  uint64_t address = 0;  // of .eh_frame_hdr; the table's entries are relative to it
  uint64_t table = 0;    // of the sorted table of (start, FDE), 2 x 4 bytes each
  uint64_t entries = 0;
};

// `base` is where the object's file offset 0 is mapped. Nothing when there is no such table, or not
// one of the usual encoding.
std::optional<EhFrameHeader> FindEhFrameHeader(RemoteMemory& memory, uint64_t base);

}  // namespace firewatch::agent
