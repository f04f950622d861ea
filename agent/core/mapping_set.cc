// SPDX-License-Identifier: Apache-2.0
// The sorted vector behind MappingSet. The kernel says what is mapped, never what is unmapped, so a
// newcomer wins over whatever it overlaps.
#include <algorithm>
#include <utility>

#include "agent/core/process_table.h"

namespace firewatch::agent {
namespace {

// A JIT that extends its code page by page is one mapping, not thousands.
bool Continues(const ProcessMapping& left, const ProcessMapping& right) {
  if (left.end != right.start || left.file != right.file) return false;
  if (left.anonymous != right.anonymous || left.vdso != right.vdso) return false;
  if (left.remapped != right.remapped) return false;
  return left.anonymous || left.file_offset + (left.end - left.start) == right.file_offset;
}

ProcessMapping TailFrom(const ProcessMapping& mapping, uint64_t start) {
  ProcessMapping tail = mapping;
  tail.file_offset += start - mapping.start;
  tail.start = start;
  return tail;
}

}  // namespace

const ProcessMapping* MappingSet::Find(uint64_t address) const {
  const auto after =
      std::upper_bound(mappings_.begin(), mappings_.end(), address,
                       [](uint64_t a, const ProcessMapping& m) { return a < m.end; });
  if (after == mappings_.end() || address < after->start) return nullptr;
  return &*after;
}

const ProcessMapping* MappingSet::FindFile(symbolizer::FileId file, uint64_t file_offset) const {
  const auto found =
      std::find_if(mappings_.begin(), mappings_.end(), [&](const ProcessMapping& mapping) {
        return mapping.file == file && !mapping.anonymous && file_offset >= mapping.file_offset &&
               file_offset - mapping.file_offset < mapping.end - mapping.start;
      });
  return found == mappings_.end() ? nullptr : &*found;
}

bool MappingSet::Add(const ProcessMapping& mapping) {
  if (mapping.start >= mapping.end) return true;
  // [first, last) are the mappings that the newcomer overlaps.
  const auto first =
      std::upper_bound(mappings_.begin(), mappings_.end(), mapping.start,
                       [](uint64_t address, const ProcessMapping& m) { return address < m.end; });
  const auto last =
      std::lower_bound(first, mappings_.end(), mapping.end,
                       [](const ProcessMapping& m, uint64_t address) { return m.start < address; });
  std::vector<ProcessMapping> replacement;
  if (first != last && first->start < mapping.start) {
    replacement.push_back(*first);
    replacement.back().end = mapping.start;
  }
  replacement.push_back(mapping);
  if (first != last && std::prev(last)->end > mapping.end) {
    replacement.push_back(TailFrom(*std::prev(last), mapping.end));
  }
  const auto overlapped = static_cast<size_t>(last - first);
  if (mappings_.size() - overlapped + replacement.size() > kMaxMappings) return false;
  const auto index = static_cast<size_t>(first - mappings_.begin());
  const size_t common = std::min(overlapped, replacement.size());
  std::copy_n(replacement.begin(), common, mappings_.begin() + static_cast<ptrdiff_t>(index));
  const auto rest = mappings_.begin() + static_cast<ptrdiff_t>(index + common);
  if (overlapped > common) {
    mappings_.erase(rest, rest + static_cast<ptrdiff_t>(overlapped - common));
  } else {
    mappings_.insert(rest, replacement.begin() + static_cast<ptrdiff_t>(common), replacement.end());
  }
  Coalesce(index > 0 ? index - 1 : 0, index + replacement.size());
  return true;
}

// Joins neighbours in mappings_[from, to].
void MappingSet::Coalesce(size_t from, size_t to) {
  for (size_t i = from; i < to && i + 1 < mappings_.size();) {
    if (Continues(mappings_[i], mappings_[i + 1])) {
      mappings_[i].end = mappings_[i + 1].end;
      mappings_.erase(mappings_.begin() + static_cast<ptrdiff_t>(i) + 1);
      --to;
    } else {
      ++i;
    }
  }
}

void MappingSet::AddFiles(symbolizer::FileSet* kept) const {
  for (const ProcessMapping& mapping : mappings_) kept->Add(mapping.file);
}

std::shared_ptr<const MappingSet> MappingSet::With(const ProcessMapping& mapping) const {
  auto copy = std::make_shared<MappingSet>(*this);
  copy->Add(mapping);
  return copy;
}

}  // namespace firewatch::agent
