// SPDX-License-Identifier: Apache-2.0
// The bytes of a symbol index file; drawn in docs/formats.md, "Symbol index". Little endian.
// Writer (index_writer.h) and reader (symbol_index.h) are the only users.
#pragma once

#include <cstddef>
#include <cstdint>

namespace firewatch::symbolizer {

inline constexpr char kIndexMagic[8] = {'F', 'W', 'S', 'Y', 'M', 'I', 'D', 'X'};
inline constexpr uint32_t kIndexVersion = 1;

inline constexpr uint32_t kIndexHasTable = 1;  // the ELF file has a .symtab or a .dynsym
inline constexpr uint32_t kIndexPseudoId = 2;  // `id` is a hash of ours, not a build id

struct IndexHeader {
  char magic[8];
  uint32_t version;
  uint32_t flags;
  uint64_t file_bytes;  // of the ELF file
  uint64_t symbol_count;
  uint64_t pool_bytes;
  uint8_t id_size;
  uint8_t id[20];
  uint8_t padding[3];
  uint64_t tables_xxh3;  // of the starts and details
  uint64_t pool_xxh3;
  uint64_t reserved;
  uint64_t header_xxh3;  // of all the bytes before it
};
static_assert(sizeof(IndexHeader) == 96 && offsetof(IndexHeader, header_xxh3) == 88);

// Then symbol_count 64-bit starts (strictly increasing), the same number of details, the pool.
struct IndexDetail {
  uint32_t size_bytes;   // from the start; never reaches into the next range
  uint32_t name;         // offsets in the pool, of strings that end with NUL
  uint32_t system_name;  // equals `name` when nothing was demangled
  uint32_t group;        // kernel module; offset of "" for none
};
static_assert(sizeof(IndexDetail) == 16);

// The first byte of the pool is NUL (offset 0 is ""), the last one too.
inline constexpr uint64_t kMaxPoolBytes = uint64_t{3} << 30;
inline constexpr uint64_t kIndexBytesPerSymbol = sizeof(uint64_t) + sizeof(IndexDetail);

}  // namespace firewatch::symbolizer
