// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/flatten.h"

#include <algorithm>
#include <cstddef>

namespace firewatch::symbolizer {
namespace {

size_t LeadingUnderscores(std::string_view name) {
  const size_t other = name.find_first_not_of('_');
  return other == std::string_view::npos ? name.size() : other;
}

// Sized ones first; then by start; of equal starts the longer first (it becomes the outer one);
// of equal ranges the best name first.
bool SortsBefore(const InputSymbol& a, const InputSymbol& b) {
  if (a.sized != b.sized) return a.sized;
  if (a.start != b.start) return a.start < b.start;
  if (a.sized && a.end != b.end) return a.end > b.end;
  return IsBetterName(a, b);
}

class Sweep {
 public:
  explicit Sweep(const std::vector<InputSymbol>& symbols) : symbols_(symbols) {}

  std::vector<SymbolRange> Run(size_t sized_count) {
    ranges_.reserve(sized_count);
    for (uint32_t i = 0; i < sized_count; ++i) {
      const InputSymbol& symbol = symbols_[i];
      if (symbol.end <= symbol.start) continue;
      if (i > 0 && symbol.start == symbols_[i - 1].start && symbol.end == symbols_[i - 1].end) {
        continue;
      }
      CloseUntil(symbol.start);
      if (!open_.empty()) Emit(open_.back(), symbol.start);
      position_ = symbol.start;
      open_.push_back(i);
    }
    CloseUntil(UINT64_MAX);
    return std::move(ranges_);
  }

 private:
  void CloseUntil(uint64_t limit) {
    while (!open_.empty() && symbols_[open_.back()].end <= limit) {
      Emit(open_.back(), symbols_[open_.back()].end);
      open_.pop_back();
    }
  }
  void Emit(uint32_t symbol, uint64_t end) {
    if (end <= position_) return;
    ranges_.push_back({.start = position_, .end = end, .symbol = symbol});
    position_ = end;
  }

  const std::vector<InputSymbol>& symbols_;
  std::vector<uint32_t> open_;  // the last one owns the bytes at position_
  uint64_t position_ = 0;
  std::vector<SymbolRange> ranges_;
};

// Step 3: merges the unsized symbols [first, end) into the gaps of `ranges`.
std::vector<SymbolRange> FillGaps(const std::vector<InputSymbol>& symbols, size_t first,
                                  std::vector<SymbolRange> ranges) {
  if (first == symbols.size()) return ranges;
  std::vector<SymbolRange> merged;
  merged.reserve(ranges.size() + symbols.size() - first);
  size_t next = 0;
  for (size_t i = first; i < symbols.size(); ++i) {
    const uint64_t start = symbols[i].start;
    if (i > first && start == symbols[i - 1].start) continue;  // an alias; the best came first
    while (next < ranges.size() && ranges[next].start <= start) merged.push_back(ranges[next++]);
    if (!merged.empty() && merged.back().end > start) {
      // Inside the range before it: a label, unless that range is an unsized one (those end here).
      continue;
    }
    uint64_t end = symbols[i].end;
    if (next < ranges.size()) end = std::min(end, ranges[next].start);
    const auto later = std::find_if(symbols.begin() + static_cast<std::ptrdiff_t>(i), symbols.end(),
                                    [&](const InputSymbol& s) { return s.start > start; });
    if (later != symbols.end()) end = std::min(end, later->start);
    if (end > start) {
      merged.push_back({.start = start, .end = end, .symbol = static_cast<uint32_t>(i)});
    }
  }
  merged.insert(merged.end(), ranges.begin() + static_cast<std::ptrdiff_t>(next), ranges.end());
  return merged;
}

}  // namespace

bool IsBetterName(const InputSymbol& a, const InputSymbol& b) {
  if (a.rank != b.rank) return a.rank < b.rank;
  const size_t underscores_a = LeadingUnderscores(a.name);
  const size_t underscores_b = LeadingUnderscores(b.name);
  if (underscores_a != underscores_b) return underscores_a < underscores_b;
  if (a.name.size() != b.name.size()) return a.name.size() < b.name.size();
  if (a.name != b.name) return a.name < b.name;
  return a.group < b.group;
}

std::vector<SymbolRange> Flatten(std::vector<InputSymbol>& symbols) {
  std::sort(symbols.begin(), symbols.end(), SortsBefore);
  const auto unsized = std::partition_point(symbols.begin(), symbols.end(),
                                            [](const InputSymbol& s) { return s.sized; });
  const auto sized_count = static_cast<size_t>(unsized - symbols.begin());
  return FillGaps(symbols, sized_count, Sweep(symbols).Run(sized_count));
}

std::vector<uint32_t> AliasesOf(const std::vector<InputSymbol>& symbols, uint32_t symbol) {
  std::vector<uint32_t> aliases;
  const InputSymbol& best = symbols[symbol];
  const auto take_while = [&](size_t first, auto same) {
    for (size_t i = first; i < symbols.size() && aliases.size() < kMaxAliases && same(symbols[i]);
         ++i) {
      aliases.push_back(static_cast<uint32_t>(i));
    }
  };
  take_while(size_t{symbol} + 1, [&](const InputSymbol& other) {
    return other.sized == best.sized && other.start == best.start &&
           (!best.sized || other.end == best.end);
  });
  if (!best.sized) return aliases;
  const auto unsized = std::partition_point(
      symbols.begin(), symbols.end(),
      [&](const InputSymbol& other) { return other.sized || other.start < best.start; });
  take_while(static_cast<size_t>(unsized - symbols.begin()),
             [&](const InputSymbol& other) { return other.start == best.start; });
  return aliases;
}

}  // namespace firewatch::symbolizer
