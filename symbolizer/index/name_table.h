// SPDX-License-Identifier: Apache-2.0
// The names of one index: strings by dense 32-bit id, as they stand in the file and demangled.
// Demangled C++ names are bulky (three times the linkage names) and repeat themselves, so they are
// kept in blocks that are compressed one by one with zstd: a name costs the decoding of one block
// (some 30 us), and whoever shows names keeps them by id (name_cache.h).
//
// NameTableBuilder gives ids out while an index is built, NameTableWriter writes the section,
// NameTable is a view on it, NameReader decodes. Bytes: docs/formats.md, "Symbol index", names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "symbolizer/dwarf/interned.h"
#include "symbolizer/index/byte_store.h"
#include "symbolizer/index/name_interner.h"

namespace firewatch::symbolizer {

// Longer names are cut before anything looks at them: nobody reads them, and a name is a
// stranger's.
inline constexpr size_t kMaxNameBytes = size_t{64} << 10;
// A demangled name above this is dropped, the linkage name is shown.
inline constexpr size_t kMaxDisplayBytes = size_t{16} << 10;

// Ids in order of first Intern: the same calls in the same order give the same ids and the same
// bytes. Id 0 is "". One thread at a time. Memory: about 25 bytes per name.
class NameTableBuilder final : public NameInterner {
 public:
  NameTableBuilder();
  NameTableBuilder(const NameTableBuilder&) = delete;
  NameTableBuilder& operator=(const NameTableBuilder&) = delete;

  // The id of a linkage name, a plain name or a path. The bytes must stay as they are until the
  // table is written (mapped sections do): nothing is copied. Mangled names are demangled when the
  // table is written.
  uint32_t Intern(std::string_view name) override;
  // The same for bytes that go away: copied when they are new.
  uint32_t InternCopy(std::string_view name) override;

  // No more names will be asked for: gives back what only finds them.
  void Close() { names_.Close(); }

  // Names given out, "" included.
  size_t size() const { return names_.size(); }
  std::string_view NameOf(uint32_t id) const { return names_[id].text(); }

 private:
  // With its hash: the table grows, and tells most names apart, without a look at the names, which
  // are all over a section of hundreds of megabytes.
  struct Name {
    explicit Name(std::string_view name);
    friend bool operator==(const Name& a, const Name& b) {
      return a.hash == b.hash && a.text() == b.text();
    }
    uint64_t Hash() const { return dwarf::MixHash(0, hash); }
    std::string_view text() const { return {data, size}; }

    const char* data;
    uint32_t size;
    uint32_t hash;
  };

  dwarf::Interned<Name, 75> names_;
  ByteStore copies_;
};

struct NameTableOptions {
  unsigned threads = 1;
  // Suffixes that compilers put behind a name (".cold", ".isra.0") are left in the shown name: in
  // Go a dot separates package and function.
  bool keep_suffixes = false;
};

// Writes the names section: the same bytes for any number of threads. Demangles: helper only.
// The shown name of a linkage name is the demangled name without the compiler's suffixes
// (name_parts.h); text with a '/' in it, a path, is never touched.
//
// All threads but one work from the constructor on, so that they need not stand still while that
// one is busy elsewhere; it takes part in Finish, which is called once. The destructor waits for
// them.
class NameTableWriter {
 public:
  // `names` must outlive the writer, and no more of them be given out.
  NameTableWriter(const NameTableBuilder& names, const NameTableOptions& options);
  ~NameTableWriter();
  NameTableWriter(const NameTableWriter&) = delete;
  NameTableWriter& operator=(const NameTableWriter&) = delete;

  absl::StatusOr<std::vector<std::byte>> Finish();

 private:
  class Work;
  std::unique_ptr<Work> work_;
};

absl::StatusOr<std::vector<std::byte>> WriteNames(const NameTableBuilder& names,
                                                  const NameTableOptions& options);

// A view on a names section; copies are cheap; immutable, any thread.
class NameTable {
 public:
  NameTable() = default;
  // DataLoss, saying what is wrong with the directory of blocks. The blocks themselves are checked
  // when they are decoded. `section` must outlive the table. `content_hash`: of the section's
  // bytes; tells tables apart in a NameReader.
  static absl::StatusOr<NameTable> Parse(std::span<const std::byte> section, uint64_t content_hash);

  uint32_t count() const { return count_; }

 private:
  friend class NameReader;
  struct Block {
    uint32_t first_place = 0;
    uint32_t end_place = 0;
    std::span<const std::byte> bytes;
  };
  // Names stand in another order than ids. Any number for damaged bytes.
  uint32_t PlaceOf(uint32_t id) const;
  // The block that holds a place, which is below count().
  size_t BlockOf(uint32_t place) const;
  Block BlockAt(size_t number) const;

  std::span<const std::byte> section_;
  const std::byte* places_ = nullptr;
  uint32_t count_ = 0;
  uint32_t block_count_ = 0;
  uint64_t content_hash_ = 0;
};

// Decodes names; keeps the blocks that it used last, whichever table they came from. Names that
// share a prefix share a block. One thread at a time. Memory: about 100 KB for zstd, and 50 to 100
// KB per block. Who shows most of a table's names wants all of its blocks (some 25 per MB of the
// section), who shows a few and keeps them (NameCache) a handful.
class NameReader {
 public:
  explicit NameReader(size_t max_blocks = 8);
  ~NameReader();
  NameReader(NameReader&&) noexcept;
  NameReader& operator=(NameReader&&) noexcept;

  // Copies the names of `id`, always printable UTF-8 without NUL; either pointer may be null.
  // False, and "" for both, when the table has no such id or its block is damaged.
  bool Read(const NameTable& table, uint32_t id, std::string* linkage, std::string* display);

 private:
  struct Decoded;
  struct State;
  // The block that holds `place`; nullptr when it is damaged. Valid until the next call.
  const Decoded* BlockOf(const NameTable& table, uint32_t place);
  std::unique_ptr<State> state_;
};

}  // namespace firewatch::symbolizer
