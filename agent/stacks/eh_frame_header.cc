// SPDX-License-Identifier: Apache-2.0
#include "agent/stacks/eh_frame_header.h"

#include <elf.h>

#include <cstring>

namespace firewatch::agent {
namespace {

constexpr int kMaxSegments = 64;
constexpr uint64_t kMaxEntries = uint64_t{1} << 24;
// DW_EH_PE: 4-byte signed, relative to the place; 4-byte unsigned; 4-byte signed, relative to the
// header. All linkers write these.
constexpr uint8_t kEncodings[4] = {1, 0x1b, 0x03, 0x3b};  // version first

}  // namespace

std::optional<EhFrameHeader> FindEhFrameHeader(RemoteMemory& memory, uint64_t base) {
  Elf64_Ehdr header;
  if (!memory.Read(&header, sizeof(header), base) ||
      std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_phnum > kMaxSegments ||
      header.e_phentsize != sizeof(Elf64_Phdr)) {
    return std::nullopt;
  }
  std::optional<uint64_t> bias;
  std::optional<uint64_t> found;
  for (int i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment;
    if (!memory.Read(&segment, sizeof(segment),
                     base + header.e_phoff + static_cast<uint64_t>(i) * sizeof(segment))) {
      return std::nullopt;
    }
    if (segment.p_type == PT_LOAD && segment.p_offset == 0) bias = base - segment.p_vaddr;
    if (segment.p_type == PT_GNU_EH_FRAME) found = segment.p_vaddr;
  }
  if (!bias || !found) return std::nullopt;
  struct {
    uint8_t encodings[4];
    int32_t frames;
    uint32_t entries;
  } start;
  const uint64_t address = *bias + *found;
  if (!memory.Read(&start, sizeof(start), address) ||
      std::memcmp(start.encodings, kEncodings, sizeof(kEncodings)) != 0 ||
      start.entries > kMaxEntries) {
    return std::nullopt;
  }
  return EhFrameHeader{
      .address = address, .table = address + sizeof(start), .entries = start.entries};
}

}  // namespace firewatch::agent
