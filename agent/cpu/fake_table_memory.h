// SPDX-License-Identifier: Apache-2.0
// TableMemory without a kernel, and the reader's side of it: an obvious look-up that follows
// locations as the unwinder does. For tests.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/core/memory.h"
#include "agent/cpu/slab_space.h"
#include "agent/cpu/table_memory.h"
#include "base/status.h"
#include "symbolizer/symbolizer.h"
#include "symbolizer/unwind/table_writer.h"

namespace firewatch::agent {

// A budget without a difference between growing and keeping.
inline MemoryBudget::Room RoomFor(uint64_t bytes) { return {.grow_to = bytes, .keep = bytes}; }

class FakeTableMemory final : public TableMemory {
 public:
  explicit FakeTableMemory(size_t tables = 64, size_t known_files_max = 1000)
      : tables_(tables), known_files_max_(known_files_max) {}

  std::span<fw_table> tables() override { return tables_; }
  absl::Status AddSlab(uint32_t slab) override {
    slabs_[slab].assign(FW_SLAB_BYTES, std::byte{0});
    return absl::OkStatus();
  }
  std::byte* Slab(uint32_t slab) override { return slabs_.at(slab).data(); }
  void RemoveSlab(uint32_t slab) override {
    slabs_.erase(slab);
    ++waits;
  }
  void WaitForPrograms() override {
    ++waits;
    if (on_wait) on_wait();
  }
  uint64_t SlabBytes() const override { return FW_SLAB_BYTES; }
  absl::Status SetKnownFile(const fw_file_key& key, const fw_known_file& file) override {
    if (known_files.size() >= known_files_max_ && !known_files.contains(key.inode)) {
      return base::ResourceExhausted("full");
    }
    known_files[key.inode] = file;
    return absl::OkStatus();
  }
  void ForgetFile(const fw_file_key& key) override { known_files.erase(key.inode); }

  size_t slab_count() const { return slabs_.size(); }

  // What a program would find for an offset of the file; nothing when the table is not there.
  std::optional<symbolizer::UnwindTable::Rule> Find(uint32_t index, uint64_t file_offset) const {
    const fw_table& table = tables_[index];
    if (table.state != FW_TABLE_READY) return std::nullopt;
    const uint64_t page = (file_offset >> FW_PAGE_SHIFT) - table.first_page;
    if ((file_offset >> FW_PAGE_SHIFT) < table.first_page || page >= table.page_count) {
      return symbolizer::UnwindTable::Rule{};
    }
    fw_page_entry entry;
    Read(table.directory, page * sizeof(entry), &entry);
    const auto place = static_cast<uint16_t>(file_offset & ((1u << FW_PAGE_SHIFT) - 1));
    uint32_t row = entry.rows;
    for (uint32_t i = 0; i < entry.rows; ++i) {
      uint16_t start = 0;
      Read(entry.location, i * sizeof(start), &start);
      if (start <= place) row = i;
    }
    if (row == entry.rows) return symbolizer::UnwindTable::Rule{};
    symbolizer::UnwindTable::Rule rule{};
    const uint32_t slot = RuleSlot(entry, row);
    Read(table.rules, slot * sizeof(rule.rule), &rule.rule);
    if (rule.rule.two_slots) Read(table.rules, (slot + 1) * sizeof(rule.slot), &rule.slot);
    return rule;
  }

  size_t waits = 0;
  std::function<void()> on_wait;
  std::map<uint64_t, fw_known_file> known_files;  // by inode

 private:
  uint32_t RuleSlot(const fw_page_entry& entry, uint32_t row) const {
    const size_t rules = entry.rows * sizeof(uint16_t);
    if ((entry.flags & FW_PAGE_WIDE) != 0) {
      uint16_t slot = 0;
      Read(entry.location, rules + row * sizeof(slot), &slot);
      return slot;
    }
    uint8_t rule = 0;
    Read(entry.location, rules + row, &rule);
    if (rule < FW_DIRECT_RULES) return rule;
    uint16_t slot = 0;
    const size_t local = (rules + entry.rows + 1) / 2 * 2;
    Read(entry.location, local + size_t{rule - uint32_t{FW_DIRECT_RULES}} * 2, &slot);
    return slot;
  }
  template <typename T>
  void Read(fw_location location, size_t offset, T* value) const {
    const auto slab = slabs_.find(SlabOf(location));
    if (slab == slabs_.end()) return;
    const size_t at = size_t{UnitOf(location)} * 8 + offset;
    if (at + sizeof(T) <= slab->second.size()) {
      std::memcpy(static_cast<void*>(value), slab->second.data() + at, sizeof(T));
    }
  }

  std::vector<fw_table> tables_;
  const size_t known_files_max_;
  std::map<uint32_t, std::vector<std::byte>> slabs_;
};

// A table of `pages` pages with a row every 32 bytes; `seed` makes its rules differ from those of
// others.
class TableForTest {
 public:
  explicit TableForTest(uint32_t pages, uint32_t seed = 1, uint32_t rules = 300) {
    symbolizer::TableSource source;
    source.id.size = 4;
    std::memcpy(source.id.bytes.data(), &seed, sizeof(seed));
    source.rules.push_back({});
    for (uint32_t i = 1; i <= rules; ++i) {
      fw_unwind_rule rule{};
      rule.base = FW_REGISTER_RSP;
      rule.cfa = i % 7 == 0 ? FW_CFA_FAR : FW_CFA_OFFSET;
      rule.two_slots = rule.cfa == FW_CFA_FAR;
      rule.cfa_offset = static_cast<short>(i * 8);
      rule.rbp_offset = static_cast<short>(seed);
      rule.rbx_offset = FW_REGISTER_UNCHANGED;
      fw_rule_slot slot{};
      if (rule.two_slots) slot.offset = static_cast<int>(i * 100'000 + seed);
      source.rules.push_back(symbolizer::WordsOf(rule, slot));
    }
    const uint64_t end = uint64_t{pages} << FW_PAGE_SHIFT;
    uint32_t row = 0;
    for (uint64_t offset = 0; offset < end; offset += 32) {
      source.rows.push_back({kFirst + offset, 1 + (row++ * 7 + seed) % rules});
    }
    source.rows.push_back({kFirst + end, 0});
    source.counts.rows_merged = source.rows.size();
    bytes_ = symbolizer::EncodeUnwindTable(source);
  }

  // Holds its bytes itself.
  std::shared_ptr<const symbolizer::MappedUnwindTable> Map() const {
    struct Owner {
      std::string bytes;
      symbolizer::MappedUnwindTable mapped;
    };
    auto owner = std::make_shared<Owner>();
    owner->bytes = bytes_;
    auto table = symbolizer::UnwindTable::Parse(std::as_bytes(std::span(owner->bytes)));
    if (!table.ok()) return nullptr;
    owner->mapped.table = *std::move(table);
    return {owner, &owner->mapped};
  }

  static constexpr uint64_t kFirst = 0x4000;

 private:
  std::string bytes_;
};

inline bool SameRule(const symbolizer::UnwindTable::Rule& a,
                     const symbolizer::UnwindTable::Rule& b) {
  return std::memcmp(&a.rule, &b.rule, sizeof(a.rule)) == 0 &&
         std::memcmp(&a.slot, &b.slot, sizeof(a.slot)) == 0;
}

}  // namespace firewatch::agent
