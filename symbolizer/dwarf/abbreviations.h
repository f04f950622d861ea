// SPDX-License-Identifier: Apache-2.0
// A table of .debug_abbrev, compiled: for each code what has to be done to skip an entry, or to
// take the few attributes that names and lines need. Most entries are one addition to skip, since
// neighbouring attributes of fixed size are added up beforehand.
//
// A table is compiled once for all units that use it: there are files with 280,000 units and one
// table (AbbreviationCache).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "symbolizer/byte_cursor.h"
#include "symbolizer/dwarf/constants.h"
#include "symbolizer/dwarf/interned.h"

namespace firewatch::symbolizer::dwarf {

// What sizes of forms depend on.
struct UnitShape {
  uint8_t version = 0;
  uint8_t address_size = 8;
  uint8_t offset_size = 4;

  bool operator==(const UnitShape&) const = default;
};

// Attributes that are taken; others are skipped. Of types, members, variables and the like, whose
// entries are most of a file, none is taken: nothing that names or places code is in them.
enum Slot : uint8_t {
  kSlotName,
  kSlotLinkageName,
  kSlotLowPc,
  kSlotHighPc,
  kSlotRanges,
  kSlotAbstractOrigin,
  kSlotSpecification,
  kSlotDeclFile,
  kSlotDeclLine,
  kSlotCallFile,
  kSlotCallLine,
  // Of the unit's own entry.
  kSlotStmtList,
  kSlotCompDir,
  kSlotStrOffsetsBase,
  kSlotAddrBase,
  kSlotRnglistsBase,
  kSlotDwoName,
  kSlotDwoId,
  kSlotGnuRangesBase,
  kSlotCount,
  kSlotNone = 0xff,
};

// Values as they stand in the entry: constants, offsets, indexes. What a value means depends on
// its form (unit.h resolves them). The value of DW_FORM_string is its offset in .debug_info.
struct Attributes {
  uint32_t present = 0;  // bit per slot
  uint64_t value[kSlotCount];
  uint16_t form[kSlotCount];

  bool Has(Slot slot) const { return (present >> slot & 1) != 0; }
};

enum class EntryKind : uint8_t {
  kMissing,          // no such code
  kPlain,            // to be skipped; what is below it is not
  kPlainTree,        // to be skipped with all below it, which holds no code
  kFunction,         // subprogram with an address
  kInlined,          // inlined call with an address
  kInlinedAbstract,  // without: part of an abstract function, or its code is gone
  kData,             // as kPlain, and kPlainTree, of which no attribute is taken
  kDataTree,
};

// One step of a compiled entry: reads or skips a value, then skips `skip` bytes. Behind a step
// whose value is in the abbreviation (DW_FORM_implicit_const), in the place of the next, is that
// value.
struct AttributeStep {
  uint8_t slot;    // kSlotNone: skip the value
  uint8_t action;  // enum Action in the .cc file
  uint16_t form;
  uint32_t skip;
};
static_assert(sizeof(AttributeStep) == sizeof(int64_t));

struct Abbreviation {
  static constexpr uint16_t kNoSibling = 0xffff;

  uint16_t tag = 0;
  EntryKind kind = EntryKind::kMissing;
  bool has_children = false;
  uint16_t sibling_at = kNoSibling;  // where a DW_FORM_ref4 to the next sibling is, when known
  uint8_t skip_count = 0;            // places of the steps to skip the entry, and
  uint8_t take_count = 0;            // to take its attributes; both start at first_step
  uint16_t skip_lead = 0;            // bytes to skip before the first step of each
  uint16_t take_lead = 0;
  uint32_t first_step = 0;
};
static_assert(sizeof(Abbreviation) == 16);  // a unit of C++ has hundreds, and many units are kept

class AbbreviationTable {
 public:
  // nullptr when the table is damaged. `*cost` grows by the bytes read. `keep`: it is worth a copy
  // without room to spare.
  static std::shared_ptr<const AbbreviationTable> Compile(std::span<const std::byte> section,
                                                          uint64_t offset, UnitShape shape,
                                                          bool keep, uint64_t* cost);

  // nullptr for a code that is not in the table.
  const Abbreviation* Find(uint64_t code) const {
    if (code < dense_.size()) {
      const Abbreviation& found = dense_[static_cast<size_t>(code)];
      return found.kind == EntryKind::kMissing ? nullptr : &found;
    }
    return FindSparse(code);
  }

  // The cursor stands after the entry's code; afterwards behind the entry. A failure shows in the
  // cursor.
  void SkipEntry(const Abbreviation& entry, ByteCursor& cursor) const {
    cursor.Skip(entry.skip_lead);
    if (entry.skip_count != 0) SkipSteps(entry, cursor);
  }
  void TakeEntry(const Abbreviation& entry, ByteCursor& cursor, Attributes* out) const;

  size_t size_bytes() const;

 private:
  friend class AbbreviationCompiler;
  const Abbreviation* FindSparse(uint64_t code) const;
  void SkipSteps(const Abbreviation& entry, ByteCursor& cursor) const;

  UnitShape shape_;
  std::vector<Abbreviation> dense_;  // by code
  std::unordered_map<uint64_t, Abbreviation> sparse_;
  std::vector<AttributeStep> steps_;
};

// Tables by offset. A table stays for as long as units that use it are to come. Any thread.
class AbbreviationCache {
 public:
  // `section` must outlive the cache.
  explicit AbbreviationCache(std::span<const std::byte> section) : section_(section) {}

  // So many units will ask for this table, more than one: of others nothing need be known. Not
  // while others call Get.
  void Announce(uint64_t offset, uint32_t units) { uses_.FindOrAdd(offset, units); }

  // nullptr when the table is damaged, or when tables that overlap have cost too much already.
  // `keep`: asked for by a reference from another unit, of which there may be many.
  std::shared_ptr<const AbbreviationTable> Get(uint64_t offset, UnitShape shape, bool keep);

 private:
  struct Kept {
    UnitShape shape;
    std::shared_ptr<const AbbreviationTable> table;
  };
  std::shared_ptr<const AbbreviationTable> Compile(uint64_t offset, UnitShape shape, bool keep);

  static constexpr size_t kMaxKeptBytes = size_t{64} << 20;
  static constexpr uint64_t kMaxCostPerByte = 64;
  std::span<const std::byte> section_;
  IndexMap uses_;
  std::mutex mutex_;
  std::unordered_map<uint64_t, std::vector<Kept>> kept_;  // guarded by mutex_
  size_t kept_bytes_ = 0;                                 // guarded by mutex_
  std::atomic<bool> keeps_ = false;                       // there has been something in kept_
  std::atomic<uint64_t> cost_ = 0;                        // bytes compiled
};

}  // namespace firewatch::symbolizer::dwarf
