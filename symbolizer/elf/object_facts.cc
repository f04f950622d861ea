// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/elf/object_facts.h"

#include <elf.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <string>
#include <utility>

#include "base/hash.h"
#include "base/status.h"

namespace firewatch::symbolizer {
namespace {

constexpr uint64_t kPseudoIdBytes = 4096;
constexpr uint64_t kMaxLinkBytes = 4096;

// Files without a build id are told apart by size, first and last 4 KiB: headers on one end,
// section headers on the other. Two builds that agree in all three would share an index.
absl::StatusOr<BuildId> PseudoId(const ByteSource& elf) {
  const uint64_t part = std::min(elf.size(), kPseudoIdBytes);
  std::string bytes(sizeof(uint64_t) + 2 * part, '\0');
  const uint64_t size = elf.size();
  std::memcpy(bytes.data(), &size, sizeof(size));
  const auto span = std::as_writable_bytes(std::span<char>(bytes)).subspan(sizeof(size));
  RETURN_IF_ERROR(elf.Read(0, span.first(part)));
  RETURN_IF_ERROR(elf.Read(size - part, span.subspan(part)));
  const base::Hash128 hash = base::HashBytes128(bytes);
  BuildId id;
  id.size = sizeof(hash.high) + sizeof(hash.low);
  std::memcpy(id.bytes.data(), &hash.high, sizeof(hash.high));
  std::memcpy(id.bytes.data() + sizeof(hash.high), &hash.low, sizeof(hash.low));
  return id;
}

void ReadLinks(const ElfFile& elf, ObjectFacts* facts) {
  if (const auto bytes = elf.ReadRaw(".gnu_debuglink", kMaxLinkBytes); bytes.ok()) {
    if (auto link = ParseDebugLink(*bytes)) {
      facts->debuglink = std::move(link->name);
      facts->debuglink_crc = link->crc;
    }
  }
  if (const auto bytes = elf.ReadRaw(".gnu_debugaltlink", kMaxLinkBytes); bytes.ok()) {
    if (auto link = ParseAltLink(*bytes)) {
      facts->altlink = std::move(link->path);
      facts->altlink_id = link->id;
    }
  }
}

}  // namespace

bool IsCommonFile(const ElfReader& elf) {
  const bool has_code =
      std::any_of(elf.sections().begin(), elf.sections().end(),
                  [](const ElfSection& section) { return (section.flags & SHF_EXECINSTR) != 0; });
  return elf.relocatable() && !has_code && elf.SectionNamed(".debug_info") != nullptr;
}

absl::StatusOr<ObjectFacts> ReadObjectFacts(const ElfFile& elf) {
  const ElfReader& reader = elf.reader();
  ObjectFacts facts;
  facts.file_bytes = reader.source().size();
  facts.id = reader.build_id();
  if (facts.id.empty()) {
    facts.has_pseudo_id = true;
    ASSIGN_OR_RETURN(facts.id, PseudoId(reader.source()));
  }
  for (const ElfSection& section : reader.sections()) {
    facts.has_symtab |= section.type == SHT_SYMTAB;
    facts.has_dynsym |= section.type == SHT_DYNSYM;
  }
  facts.has_dwarf = elf.Has(".debug_info");
  facts.may_be_split = facts.has_dwarf && elf.Has(".debug_addr");
  ReadLinks(elf, &facts);
  for (const ElfSegment& segment : reader.segments()) {
    if (!segment.executable || segment.file_size == 0) continue;
    ElfSegment bounded = segment;  // a stranger's numbers: their sums must not wrap around
    bounded.file_size =
        std::min({segment.file_size, UINT64_MAX - segment.file_offset, UINT64_MAX - segment.vaddr});
    facts.executable_segments.push_back(bounded);
  }
  return facts;
}

}  // namespace firewatch::symbolizer
