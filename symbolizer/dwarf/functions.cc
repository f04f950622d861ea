// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/dwarf/functions.h"

#include <algorithm>

#include "symbolizer/room.h"

namespace firewatch::symbolizer::dwarf {
namespace {

// The processor asks for what comes next by itself, but not beyond a page.
constexpr size_t kAheadBytes = 1024;

uint32_t LineOf(uint64_t line) { return line > UINT32_MAX ? 0 : static_cast<uint32_t>(line); }

}  // namespace

FunctionWalk::FunctionWalk() {
  ReserveRoom(&entries_);
  ReserveRoom(&ranges_);
  ReserveRoom(&names_);
  ReserveRoom(&function_ranges_);
}

void FunctionWalk::Start(const Unit& unit, const CodeFilter& filter, ForeignUnits& foreign) {
  unit_ = &unit;
  filter_ = &filter;
  foreign_ = &foreign;
  counts_ = {};
  range_budget_ = unit.RangeBudget();
  open_.clear();
  function_ranges_.clear();
  cursor_ = ByteCursor(unit.file().sections().info, unit.first_child());
  cursor_.LimitTo(unit.header().end);
  depth_ = unit.has_children() ? 1 : 0;
}

bool FunctionWalk::Read() {
  if (depth_ == 0 || cursor_.at_end()) return false;
  entries_.assign(1, CodeEntry());
  ranges_.clear();
  names_.assign(1, FunctionName());
  names_by_origin_.Clear();
  first_function_range_ = function_ranges_.size();

  const AbbreviationTable& table = unit_->table();
  ByteCursor cursor = cursor_;
  Attributes attributes;
  uint32_t depth = depth_;
  while (!cursor.at_end()) {
    cursor.Expect(kAheadBytes);
    const uint64_t code = cursor.Uleb();
    if (code == 0) {
      if (--depth == 0) break;
      if (!open_.empty() && open_.back().depth >= depth) {
        open_.pop_back();
        if (open_.empty() && ranges_.size() >= kRangesPerPiece) break;
      }
      continue;
    }
    const Abbreviation* abbreviation = table.Find(code);
    if (abbreviation == nullptr) {
      cursor.Fail();
      break;
    }
    const uint32_t inside = open_.empty() ? 0 : open_.back().entry;
    uint32_t entry = inside;
    switch (abbreviation->kind) {
      case EntryKind::kFunction:
        table.TakeEntry(*abbreviation, cursor, &attributes);
        entry = cursor.ok() ? AddFunction(attributes) : 0;
        break;
      case EntryKind::kInlined:
      case EntryKind::kInlinedAbstract:
        // Without code of its own around it, an inlined call without code is part of an abstract
        // function.
        if (inside == 0 && (abbreviation->kind == EntryKind::kInlinedAbstract || !open_.empty())) {
          table.SkipEntry(*abbreviation, cursor);
          break;
        }
        table.TakeEntry(*abbreviation, cursor, &attributes);
        entry = cursor.ok() ? AddInlined(attributes, inside) : 0;
        break;
      case EntryKind::kPlainTree:
      case EntryKind::kDataTree:
        if (abbreviation->has_children && abbreviation->sibling_at != Abbreviation::kNoSibling) {
          const uint64_t start = cursor.position();
          cursor.Skip(abbreviation->sibling_at);
          const uint64_t sibling = unit_->header().offset + cursor.U32();
          if (sibling > start && sibling <= unit_->header().end) {
            cursor.JumpTo(sibling);
            continue;
          }
          cursor.JumpTo(start);
        }
        table.SkipEntry(*abbreviation, cursor);
        break;
      default:
        table.SkipEntry(*abbreviation, cursor);
    }
    if (abbreviation->has_children) {
      if (entry != inside || abbreviation->kind == EntryKind::kFunction) {
        open_.push_back({depth, entry});
      }
      ++depth;
    } else if (open_.empty() && ranges_.size() >= kRangesPerPiece) {
      break;
    }
  }
  counts_.damaged = !cursor.ok() || range_budget_ == 0;
  cursor_ = cursor;
  depth_ = depth;
  return true;
}

bool FunctionWalk::AddRanges(const Attributes& attributes, uint32_t entry) {
  found_.clear();
  unit_->RangesOf(attributes, &range_budget_, &found_);
  bool any = false;
  for (AddressRange& range : found_) {
    if (!filter_->IsCode(&range)) {
      ++counts_.ranges_dropped;
    } else if (filter_->IsWanted(range.start, range.end)) {
      ranges_.push_back({range.start, range.end, entry});
      any = true;
    }
  }
  return any;
}

uint32_t FunctionWalk::AddFunction(const Attributes& attributes) {
  const auto entry = static_cast<uint32_t>(entries_.size());
  const size_t before = ranges_.size();
  if (!AddRanges(attributes, entry)) return 0;
  for (size_t i = before; i < ranges_.size(); ++i) {
    function_ranges_.push_back({ranges_[i].start, ranges_[i].end});
  }
  ++counts_.functions;
  entries_.push_back({.name = NameOf(attributes)});
  return entry;
}

uint32_t FunctionWalk::AddInlined(const Attributes& attributes, uint32_t parent) {
  const auto entry = static_cast<uint32_t>(entries_.size());
  const CodeEntry& outer = entries_[parent];
  const uint32_t depth = parent == 0 ? 0 : outer.depth + 1;
  if (depth > kMaxDepth) return parent;
  // One whose own ranges are gone may still have children with code.
  if (AddRanges(attributes, entry)) {
    ++counts_.inlined;
  } else if (filter_->limited()) {
    return 0;
  }
  CodeEntry added = {.parent = parent, .depth = depth};
  added.call_line = LineOf(unit_->ConstantOf(attributes, kSlotCallLine));
  if (attributes.Has(kSlotCallFile)) added.call_file = attributes.value[kSlotCallFile];
  added.name = NameOf(attributes);
  entries_.push_back(added);
  return entry;
}

// Many calls have one origin. An entry that says something about its name itself (the variants of a
// constructor do) is on its own.
uint32_t FunctionWalk::NameOf(const Attributes& attributes) {
  const auto next = static_cast<uint32_t>(names_.size());
  const std::optional<EntryRef> origin = unit_->ReferenceOf(attributes, kSlotAbstractOrigin);
  if (origin && !attributes.Has(kSlotLinkageName) && !attributes.Has(kSlotName) &&
      !attributes.Has(kSlotDeclLine)) {
    const uint64_t key = origin->offset * 2 + (origin->file == &unit_->file() ? 0 : 1);
    const auto [name, found] = names_by_origin_.FindOrAdd(key, next);
    if (found) return name;
  }
  names_.push_back(ResolveFunction(*unit_, attributes, *foreign_));
  if (names_.back().name == nullptr) ++counts_.names_missing;
  return next;
}

}  // namespace firewatch::symbolizer::dwarf
