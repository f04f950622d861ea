// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/unwind/unwind_table.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/hash.h"
#include "base/status.h"
#include "symbolizer/unwind/table_format.h"

namespace firewatch::symbolizer {
namespace {

constexpr uint64_t kMaxPageNumber = uint64_t{1} << (FW_FRAME_FILE_OFFSET_BITS - FW_PAGE_SHIFT);

std::string_view Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

template <typename T>
std::span<const T> Cast(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
}

absl::Status CheckHeader(std::span<const std::byte> bytes, TableHeader* header) {
  if (reinterpret_cast<uintptr_t>(bytes.data()) % alignof(uint64_t) != 0) {
    return base::DataLoss("unwind table: not aligned");
  }
  if (bytes.size() < sizeof(*header)) return base::DataLoss("unwind table: too short");
  std::memcpy(header, bytes.data(), sizeof(*header));
  if (std::memcmp(header->magic, kTableMagic, sizeof(kTableMagic)) != 0) {
    return base::DataLoss("unwind table: wrong magic");
  }
  if (header->version != kTableVersion) {
    return base::DataLoss("unwind table: version {}", header->version);
  }
  if (header->header_xxh3 != base::Hash64(Text(bytes.first(offsetof(TableHeader, header_xxh3))))) {
    return base::DataLoss("unwind table: wrong checksum of the header");
  }
  if (header->id_size > sizeof(header->id) || header->rule_slots == 0 ||
      header->rule_slots > FW_RULE_SLOTS_MAX || header->page_count > kTablePagesMax ||
      uint64_t{header->first_page} + header->page_count > kMaxPageNumber ||
      header->page_bytes % 8 != 0 || header->page_bytes > bytes.size() ||
      bytes.size() != sizeof(*header) + header->rule_slots * sizeof(fw_unwind_rule) +
                          header->page_count * sizeof(fw_page_entry) + header->page_bytes) {
    return base::DataLoss("unwind table: counts do not fit its size");
  }
  if (header->body_xxh3 != base::Hash64(Text(bytes.subspan(sizeof(*header))))) {
    return base::DataLoss("unwind table: wrong checksum");
  }
  return absl::OkStatus();
}

bool NeedsTwoSlots(const fw_unwind_rule& rule) {
  return rule.cfa == FW_CFA_DEREF || rule.cfa == FW_CFA_FAR || rule.ra == FW_RA_AT_SLOT;
}

// Which slots begin a rule: only those may be named by a row.
absl::StatusOr<std::vector<bool>> CheckRules(std::span<const fw_unwind_rule> rules) {
  std::vector<bool> begins(rules.size(), true);
  if (rules[0].cfa != FW_CFA_NONE || rules[0].two_slots) {
    return base::DataLoss("unwind table: rule 0 is not NONE");
  }
  for (size_t i = 0; i < rules.size(); ++i) {
    const fw_unwind_rule& rule = rules[i];
    if (rule.cfa > FW_CFA_FAR || rule.ra > FW_RA_AT_SLOT || rule.two_slots != NeedsTwoSlots(rule) ||
        (rule.two_slots && i + 1 == rules.size())) {
      return base::DataLoss("unwind table: rule {} is none", i);
    }
    if (rule.two_slots) begins[++i] = false;
  }
  return begins;
}

struct PageView {
  std::span<const uint16_t> places;
  std::span<const uint8_t> numbers;  // narrow
  std::span<const uint16_t> local;   // narrow
  std::span<const uint16_t> slots;   // wide

  PageView(std::span<const std::byte> bytes, const fw_page_entry& entry) {
    const size_t rows = entry.rows;
    places = Cast<uint16_t>(bytes.first(rows * sizeof(uint16_t)));
    const auto rest = bytes.subspan(rows * sizeof(uint16_t));
    if ((entry.flags & FW_PAGE_WIDE) != 0) {
      slots = Cast<uint16_t>(rest.first(rows * sizeof(uint16_t)));
      return;
    }
    numbers = Cast<uint8_t>(rest.first(rows));
    local = Cast<uint16_t>(rest.subspan(rows + rows % 2, entry.local_rules * sizeof(uint16_t)));
  }
  // The slot of a row, or nothing sensible when it names a local rule that is not there.
  size_t SlotOf(size_t row) const {
    if (!slots.empty()) return slots[row];
    const size_t number = numbers[row];
    if (number < FW_DIRECT_RULES) return number;
    const size_t index = number - FW_DIRECT_RULES;
    return index < local.size() ? local[index] : SIZE_MAX;
  }
};

bool IsSoundPage(const PageView& page, const std::vector<bool>& begins) {
  if (page.places[0] != 0) return false;
  for (size_t row = 0; row < page.places.size(); ++row) {
    if (page.places[row] >= FW_PAGE_ROWS_MAX) return false;
    if (row > 0 && page.places[row] <= page.places[row - 1]) return false;
    const size_t slot = page.SlotOf(row);
    if (slot >= begins.size() || !begins[slot]) return false;
  }
  // Locals that no row names are copied to the kernel, too.
  return std::all_of(page.local.begin(), page.local.end(),
                     [&begins](uint16_t slot) { return slot < begins.size() && begins[slot]; });
}

}  // namespace

size_t UnwindTable::PageBytes(const fw_page_entry& entry) {
  const size_t rows = entry.rows;
  const size_t bytes = (entry.flags & FW_PAGE_WIDE) != 0
                           ? rows * 4
                           : rows * 2 + rows + rows % 2 + size_t{entry.local_rules} * 2;
  return (bytes + 7) & ~size_t{7};
}

absl::StatusOr<UnwindTable> UnwindTable::Parse(std::span<const std::byte> bytes) {
  TableHeader header;
  RETURN_IF_ERROR(CheckHeader(bytes, &header));
  UnwindTable table;
  auto rest = bytes.subspan(sizeof(header));
  table.rules_ = Cast<fw_unwind_rule>(rest.first(header.rule_slots * sizeof(fw_unwind_rule)));
  rest = rest.subspan(table.rules_.size_bytes());
  table.directory_ = Cast<fw_page_entry>(rest.first(header.page_count * sizeof(fw_page_entry)));
  table.pages_ = rest.subspan(table.directory_.size_bytes());
  ASSIGN_OR_RETURN(const std::vector<bool> begins, CheckRules(table.rules_));
  for (const fw_page_entry& entry : table.directory_) {
    if (entry.rows == 0) continue;
    const uint64_t start = uint64_t{entry.location} * 8;
    if (entry.rows > FW_PAGE_ROWS_MAX || entry.local_rules > FW_LOCAL_RULES ||
        (entry.flags & ~FW_PAGE_WIDE) != 0 || start > table.pages_.size() ||
        PageBytes(entry) > table.pages_.size() - start ||
        !IsSoundPage(PageView(table.page(entry), entry), begins)) {
      return base::DataLoss("unwind table: page {} is broken", &entry - table.directory_.data());
    }
    table.row_count_ += entry.rows;
  }
  if (table.row_count_ != header.row_count) return base::DataLoss("unwind table: wrong row count");
  table.first_page_ = header.first_page;
  table.build_id_.size = header.id_size;
  std::memcpy(table.build_id_.bytes.data(), header.id, sizeof(header.id));
  table.counts_ = {.fdes = header.counts[0],
                   .fdes_refused = header.counts[1],
                   .rows_read = header.counts[2],
                   .rows_merged = header.counts[3],
                   .rows_no_rule = header.counts[4],
                   .cfi_bytes = header.counts[5]};
  return table;
}

std::span<const std::byte> UnwindTable::page(const fw_page_entry& entry) const {
  return entry.rows == 0 ? std::span<const std::byte>()
                         : pages_.subspan(size_t{entry.location} * 8, PageBytes(entry));
}

UnwindTable::Rule UnwindTable::Find(uint64_t file_offset) const {
  Rule found;
  std::memset(&found, 0, sizeof(found));
  const uint64_t number = file_offset >> FW_PAGE_SHIFT;
  if (number < first_page_ || number - first_page_ >= directory_.size()) return found;
  const fw_page_entry& entry = directory_[number - first_page_];
  if (entry.rows == 0) return found;
  const PageView view(page(entry), entry);
  const auto place = static_cast<uint16_t>(file_offset & (FW_PAGE_ROWS_MAX - 1));
  const auto behind = std::upper_bound(view.places.begin(), view.places.end(), place);
  const size_t slot = view.SlotOf(static_cast<size_t>(behind - view.places.begin()) - 1);
  found.rule = rules_[slot];
  if (found.rule.two_slots) std::memcpy(&found.slot, &rules_[slot + 1], sizeof(found.slot));
  return found;
}

}  // namespace firewatch::symbolizer
