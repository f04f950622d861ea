// SPDX-License-Identifier: Apache-2.0
// The name and the place of declaration of a function, which may be spread over several entries:
// the concrete function refers to its abstract origin, that one to the declaration in a class, and
// each may be in another unit (LTO) or in the supplementary file (dwz).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "symbolizer/dwarf/line_program.h"
#include "symbolizer/dwarf/unit.h"

namespace firewatch::symbolizer::dwarf {

// Units that others refer to, kept open. One thread.
class ForeignUnits {
 public:
  struct Opened {
    Unit unit;
    uint32_t number = 0;  // among those that are open
    bool usable = false;
    bool lines_tried = false;
    LineProgram lines;  // its table of files only
  };
  // The unit of an entry; nullptr when there is none. Valid until the next call of Trim.
  Opened* Find(const EntryRef& entry);
  // The path of a file in the table of such a unit; false when there is none.
  static bool PathOf(Opened& opened, uint64_t file, std::string* path);
  // Forgets all when they have become many. Between units.
  void Trim();
  void Clear() { opened_.clear(); }

 private:
  static constexpr size_t kMaxOpened = 512;
  struct Key {
    const InfoFile* file;
    uint64_t offset;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const {
      return static_cast<size_t>(reinterpret_cast<uintptr_t>(key.file) * 31 + key.offset);
    }
  };
  std::unordered_map<Key, std::unique_ptr<Opened>, KeyHash> opened_;
};

struct FunctionName {
  // The linkage name, or DW_AT_name, in a section; nullptr when there is none.
  const char* name = nullptr;
  ForeignUnits::Opened* file_unit = nullptr;  // whose table `file` is of; nullptr: the unit's own
  bool has_file = false;
  uint64_t file = 0;
  uint64_t line = 0;
};

// `attributes` are those of an entry of `unit`. At most kMaxSteps entries are looked at.
FunctionName ResolveFunction(const Unit& unit, const Attributes& attributes, ForeignUnits& foreign);

}  // namespace firewatch::symbolizer::dwarf
