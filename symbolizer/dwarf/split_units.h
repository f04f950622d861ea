// SPDX-License-Identifier: Apache-2.0
// Split DWARF: the skeleton unit in the main file has the addresses and the line program; functions
// are in a unit of the same id, in a package (.dwp) or in a .dwo file of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "symbolizer/dwarf/unit.h"

namespace firewatch::symbolizer::dwarf {

// Any thread, as far as DwarfInput::open_dwo allows.
class SplitUnits {
 public:
  // `input` must outlive it.
  explicit SplitUnits(const DwarfInput& input);

  // A split unit, and what it stands on.
  struct Opened {
    std::unique_ptr<DwarfSections> sections;
    std::unique_ptr<InfoFile> file;
    std::unique_ptr<Unit> unit;  // nullptr: it cannot be had
  };
  Opened Open(const Unit& skeleton) const;

 private:
  // The unit's part of each section of the package; nullopt when it is not in there.
  std::optional<DwarfSections> InPackage(uint64_t dwo_id) const;
  bool ReadIndexHeader();

  const DwarfInput& input_;
  // Of the package's index: 0 slots when there is none, or it is damaged.
  uint32_t columns_ = 0;
  uint32_t units_ = 0;
  uint32_t slots_ = 0;
  uint16_t version_ = 0;
};

}  // namespace firewatch::symbolizer::dwarf
