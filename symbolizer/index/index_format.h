// SPDX-License-Identifier: Apache-2.0
// The bytes of a symbol index file, a container of sections; drawn in docs/formats.md, "Symbol
// index". Little endian. Writer (index_writer.h) and reader (symbol_index.h) are the only users.
#pragma once

#include <cstddef>
#include <cstdint>

namespace firewatch::symbolizer {

inline constexpr char kIndexMagic[8] = {'F', 'W', 'S', 'Y', 'M', 'I', 'D', 'X'};
inline constexpr uint32_t kIndexVersion = 2;

inline constexpr uint32_t kIndexHasTable = 1;  // the ELF file has a .symtab or a .dynsym
inline constexpr uint32_t kIndexPseudoId = 2;  // `id` is a hash of ours, not a build id

// What is known of lines. kNotTried: a first-stage index, the second stage replaces it.
enum class LinesState : uint8_t {
  kNotTried = 0,
  kPresent = 1,
  kNoDebugInfo = 2,  // neither the file nor a debug file that could be found has any
  kMismatch = 3,     // a debug file was found, but belongs to another build
  kOverBudget = 4,   // too large for the limits of memory or time
  kDamaged = 5,      // its debug information cannot be read
};
inline constexpr uint8_t kLinesStateCount = 6;

struct IndexHeader {
  char magic[8];
  uint32_t version;
  uint32_t flags;
  uint64_t elf_bytes;    // of the ELF file
  uint64_t index_bytes;  // of this file
  uint8_t id_size;
  uint8_t id[20];
  uint8_t lines_state;     // LinesState
  uint16_t section_count;  // at most kMaxIndexSections
  uint64_t reserved;
};
static_assert(sizeof(IndexHeader) == 64);

// Then section_count of these in order of offset, then xxh3-64 of all the bytes before it, then the
// sections at multiples of 8, zeros between them. Lines come first: they are written while names
// are still being collected.
struct IndexSectionEntry {
  uint32_t kind;
  uint32_t version;  // of the section's encoding
  uint64_t offset;
  uint64_t size;
  uint64_t xxh3;  // of the section's bytes
};
static_assert(sizeof(IndexSectionEntry) == 32);
inline constexpr uint16_t kMaxIndexSections = 16;

enum class IndexSectionKind : uint32_t {
  kSegments = 1,
  kNames = 2,
  kSymbols = 3,
  kLines = 4,
};
inline constexpr uint32_t kSegmentsVersion = 1;
inline constexpr uint32_t kNamesVersion = 1;
inline constexpr uint32_t kSymbolsVersion = 1;

// Segments section: executable PT_LOAD segments of the file that runs, in order of file offset.
struct IndexSegment {
  uint64_t file_offset;
  uint64_t vaddr;
  uint64_t file_size;
};
static_assert(sizeof(IndexSegment) == 24);
inline constexpr size_t kMaxIndexSegments = 4096;

// Names section: header, block_count + 1 entries (the last one closes the last block), the place of
// every id, blocks. Names stand in alphabetical order of their linkage names, because neighbours
// that resemble each other pack better (ceph-mon with lines: 2.54 MB with the column of places,
// 3.05 MB in order of id); a place is a name's number in that order.
struct NamesHeader {
  uint32_t count;  // names, ids 0 to count - 1
  uint32_t block_count;
};
struct NamesBlockEntry {
  uint32_t first_place;
  uint32_t offset;  // from the start of the section
};
constexpr size_t NamePlaceBytes(uint32_t count) { return count <= (1U << 24) ? 3 : 4; }
static_assert(sizeof(NamesHeader) == 8 && sizeof(NamesBlockEntry) == 8);
// Of a block when it is unpacked. A block ends when its linkage names reach the lower figure.
inline constexpr size_t kNamesBlockLinkageBytes = size_t{16} << 10;
inline constexpr size_t kMaxNamesBlockBytes = size_t{1} << 20;
inline constexpr size_t kMaxNamesPerBlock = 4096;

// Symbols section: header, chunks, starts, sizes, names, flags, groups, then the three lists.
// Ranges are sorted by start and do not overlap. A chunk holds ranges whose starts lie within
// 4 GiB of its base, so that a start takes 4 bytes.
struct SymbolsHeader {
  uint32_t range_count;
  uint32_t chunk_count;
  uint32_t large_count;  // ranges of kLargeSize and more
  uint32_t alias_count;
  uint16_t group_count;  // 0: no column of groups
  uint8_t name_width;    // bytes per name id: 2 to 4
  uint8_t reserved[5];
};
static_assert(sizeof(SymbolsHeader) == 24);
struct SymbolsChunk {
  uint64_t base;
  uint32_t first_range;
  uint32_t reserved;
};
static_assert(sizeof(SymbolsChunk) == 16);
inline constexpr uint16_t kLargeSize = 0xffff;  // the size stands in the list of large ranges
struct SymbolsLarge {
  uint64_t size;
  uint32_t range;
  uint32_t reserved;
};
static_assert(sizeof(SymbolsLarge) == 16);
struct SymbolsAlias {  // in order of range; the best name of the range is not repeated
  uint32_t range;
  uint32_t name;
};
static_assert(sizeof(SymbolsAlias) == 8);

}  // namespace firewatch::symbolizer
