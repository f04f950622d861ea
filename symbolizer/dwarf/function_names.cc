// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/dwarf/function_names.h"

#include <array>

namespace firewatch::symbolizer::dwarf {
namespace {

// A concrete function, its origin, the origin's declaration: three in practice.
constexpr size_t kMaxSteps = 16;

}  // namespace

ForeignUnits::Opened* ForeignUnits::Find(const EntryRef& entry) {
  const std::optional<uint64_t> offset = entry.file->UnitOf(entry.offset);
  if (!offset) return nullptr;
  std::unique_ptr<Opened>& opened = opened_[{entry.file, *offset}];
  if (opened == nullptr) {
    opened = std::make_unique<Opened>();
    opened->number = static_cast<uint32_t>(opened_.size());
    opened->usable = opened->unit.Open(*entry.file, *offset, true);
  }
  return opened->usable ? opened.get() : nullptr;
}

bool ForeignUnits::PathOf(Opened& opened, uint64_t file, std::string* path) {
  if (!opened.lines_tried) {
    opened.lines_tried = true;
    if (opened.unit.line_program()) {
      opened.lines.Open(opened.unit.file().sections(), *opened.unit.line_program(),
                        opened.unit.header().shape.address_size);
    }
  }
  return opened.lines.PathOf(file, opened.unit.comp_dir(), path);
}

void ForeignUnits::Trim() {
  if (opened_.size() > kMaxOpened) opened_.clear();
}

FunctionName ResolveFunction(const Unit& unit, const Attributes& attributes,
                             ForeignUnits& foreign) {
  struct Reference {
    EntryRef entry;
    const Unit* unit;  // that refers to it
  };
  std::array<Reference, kMaxSteps> pending;
  size_t pending_count = 0;
  FunctionName result;
  bool has_linkage_name = false;
  bool has_line = false;

  const Unit* at = &unit;
  ForeignUnits::Opened* at_foreign = nullptr;
  Attributes read;
  const Attributes* values = &attributes;
  for (size_t steps = 0;; ++steps) {
    if (!has_linkage_name) {
      if (const char* name = at->TextOf(*values, kSlotLinkageName)) {
        result.name = name;
        has_linkage_name = true;
      } else if (result.name == nullptr) {
        result.name = at->TextOf(*values, kSlotName);
      }
    }
    if (!result.has_file && values->Has(kSlotDeclFile)) {
      result.has_file = true;
      result.file = values->value[kSlotDeclFile];
      result.file_unit = at_foreign;
    }
    if (!has_line && values->Has(kSlotDeclLine)) {
      has_line = true;
      result.line = values->value[kSlotDeclLine];
    }
    if (has_linkage_name && has_line && result.has_file) break;
    // The origin is looked at before the specification, so it is pushed last.
    for (const Slot slot : {kSlotSpecification, kSlotAbstractOrigin}) {
      const std::optional<EntryRef> entry = at->ReferenceOf(*values, slot);
      if (entry && pending_count < pending.size()) pending[pending_count++] = {*entry, at};
    }
    // To the next entry that can be read.
    const Abbreviation* found = nullptr;
    while (found == nullptr && pending_count > 0 && steps < kMaxSteps) {
      const Reference next = pending[--pending_count];
      const UnitHeader& header = next.unit->header();
      if (next.entry.file == &next.unit->file() && next.entry.offset >= header.offset &&
          next.entry.offset < header.end) {
        at = next.unit;
        if (at == &unit) at_foreign = nullptr;
      } else {
        at_foreign = foreign.Find(next.entry);
        if (at_foreign == nullptr) continue;
        at = &at_foreign->unit;
      }
      found = at->EntryAt(next.entry.offset, &read);
      ++steps;
    }
    if (found == nullptr) break;
    values = &read;
  }
  return result;
}

}  // namespace firewatch::symbolizer::dwarf
