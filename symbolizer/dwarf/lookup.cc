// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/dwarf/lookup.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "base/status.h"
#include "symbolizer/dwarf/aranges.h"

namespace firewatch::symbolizer {
namespace {

using dwarf::CodeFilter;
using dwarf::InfoFile;
using dwarf::SplitUnits;
using dwarf::Unit;
using dwarf::UnitCounts;
using dwarf::UnitLines;
using dwarf::UnitReader;

class Lookup {
 public:
  Lookup(const InfoFile& file, const DwarfInput& input, std::span<const uint64_t> addresses,
         std::vector<LookupAnswer>* answers, UnitCounts* counts)
      : file_(file),
        input_(input),
        split_(input),
        reader_(split_),
        addresses_(addresses),
        answers_(*answers),
        counts_(*counts) {}

  void Run() {
    ReadUnits(UnitsByAranges());
    ReadUnits(UnitsByRanges());
  }

 private:
  // The addresses to look for in a unit, ascending. Of units that claim the same code the first one
  // that knows a function speaks, so units are read in order.
  using Wanted = std::map<uint64_t, std::vector<size_t>>;

  bool IsOpen(size_t index) const {
    const std::vector<LookupFrame>& frames = answers_[index].frames;
    return frames.empty() || (frames.size() == 1 && !has_function_[index]);
  }
  // The places in addresses_ of those in [start, end).
  std::pair<size_t, size_t> Inside(uint64_t start, uint64_t end) const {
    const auto first = std::lower_bound(addresses_.begin(), addresses_.end(), start);
    const auto last = std::lower_bound(first, addresses_.end(), end);
    return {static_cast<size_t>(first - addresses_.begin()),
            static_cast<size_t>(last - addresses_.begin())};
  }

  Wanted UnitsByAranges() {
    has_function_.assign(addresses_.size(), false);
    Wanted wanted;
    dwarf::ForEachArange(input_.main.aranges, [&](uint64_t start, uint64_t end, uint64_t unit) {
      const auto [first, last] = Inside(start, end);
      if (first == last ||
          !std::binary_search(file_.unit_offsets().begin(), file_.unit_offsets().end(), unit)) {
        return;
      }
      for (size_t i = first; i < last; ++i) wanted[unit].push_back(i);
    });
    return wanted;
  }

  Wanted UnitsByRanges() {
    Wanted wanted;
    std::vector<size_t> open;
    for (size_t i = 0; i < addresses_.size(); ++i) {
      if (IsOpen(i)) open.push_back(i);
    }
    if (open.empty()) return wanted;
    std::vector<AddressRange> ranges;
    for (const uint64_t offset : file_.unit_offsets()) {
      Unit unit;
      if (!unit.Open(file_, offset, true)) continue;  // counted when it is read, if ever
      if (unit.is_partial()) continue;
      ranges.clear();
      size_t budget = unit.RangeBudget();
      unit.RangesOf(unit.attributes(), &budget, &ranges);
      if (ranges.empty()) {
        // It does not say, or has no code.
        if (unit.has_children() || unit.line_program()) wanted[offset] = open;
        continue;
      }
      std::vector<size_t> inside;
      if (unit.header().shape.version < 5 && unit.attributes().Has(dwarf::kSlotRanges)) {
        // gold leaves a pair of zeros for code that it left out, which ends the list early.
        wanted[offset] = open;
        continue;
      }
      for (const AddressRange& range : ranges) {
        const auto [first, last] = Inside(range.start, range.end);
        for (size_t i = first; i < last; ++i) {
          if (IsOpen(i)) inside.push_back(i);
        }
      }
      if (!inside.empty()) wanted[offset] = std::move(inside);
    }
    return wanted;
  }

  void ReadUnits(Wanted wanted) {
    std::vector<uint64_t> unit_addresses;
    for (auto& [offset, places] : wanted) {
      std::erase_if(places, [this](size_t place) { return !IsOpen(place); });
      std::sort(places.begin(), places.end());
      places.erase(std::unique(places.begin(), places.end()), places.end());
      if (places.empty()) continue;
      unit_addresses.clear();
      for (const size_t place : places) unit_addresses.push_back(addresses_[place]);
      CodeFilter filter(input_.executable);
      filter.LimitTo(unit_addresses);
      const std::vector<size_t>& in_unit = places;
      reader_.Read(
          file_, offset, filter, [&](const UnitLines& piece) { Answer(in_unit, piece); }, &counts_);
    }
  }

  void Answer(const std::vector<size_t>& places, const UnitLines& piece) {
    for (const size_t place : places) {
      if (!IsOpen(place)) continue;
      const auto after =
          std::upper_bound(piece.rows.begin(), piece.rows.end(), addresses_[place],
                           [](uint64_t at, const UnitLines::Row& row) { return at < row.address; });
      if (after == piece.rows.begin() || (after - 1)->chain == 0) continue;
      const UnitLines::Chain& chain = piece.chains[(after - 1)->chain];
      std::vector<LookupFrame>& frames = answers_[place].frames;
      if (chain.node == 0 && !frames.empty()) continue;
      frames.clear();
      has_function_[place] = chain.node != 0;
      uint32_t file = chain.file;
      uint32_t line = chain.line;
      if (chain.node == 0) frames.push_back({.file = std::string(piece.files[file]), .line = line});
      for (uint32_t at = chain.node; at != 0; at = piece.nodes[at].parent) {
        const UnitLines::Node& node = piece.nodes[at];
        const UnitLines::Function& function = piece.functions[node.function];
        frames.push_back({.function = function.name == nullptr ? "" : function.name,
                          .file = std::string(piece.files[file]),
                          .line = line,
                          .start_line = function.line,
                          .inlined = node.parent != 0});
        file = node.call_file;
        line = node.call_line;
      }
    }
  }

  const InfoFile& file_;
  const DwarfInput& input_;
  SplitUnits split_;
  UnitReader reader_;
  std::span<const uint64_t> addresses_;
  std::vector<LookupAnswer>& answers_;
  std::vector<bool> has_function_;
  UnitCounts& counts_;
};

}  // namespace

absl::Status LookupAddresses(const DwarfInput& input, std::span<const uint64_t> addresses,
                             std::vector<LookupAnswer>* answers, UnitCounts* counts) {
  answers->assign(addresses.size(), {});
  if (input.main.info.empty()) return base::NotFound("no .debug_info");
  std::optional<InfoFile> alt;
  if (!input.alt.empty()) alt.emplace(input.alt, nullptr);
  const InfoFile file(input.main, alt ? &*alt : nullptr);
  Lookup(file, input, addresses, answers, counts).Run();
  return absl::OkStatus();
}

}  // namespace firewatch::symbolizer
