// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A walked process made by hand: stack, mappings, tables, and the hooks of bpf/unwind.h that read
// them. Every test file that includes this has its own copy of the walk.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "bpf/include/frame.h"
#include "bpf/include/unwind_table.h"

namespace {
bool use_tables = true;
}  // namespace
#define FW_USE_TABLES use_tables
#include "bpf/unwind.h"

namespace {

// What the hooks answer from: one walked process and the tables of its files.
struct Process {
  std::map<fw_u64, std::vector<fw_u8>> pages;  // by address
  std::vector<fw_mapping> mappings;
  bool mappings_unreadable = false;
  std::vector<fw_table> tables;
  std::vector<std::vector<fw_u64>> slabs;  // words: aligned like the kernel's
  std::unique_ptr<fw_rule_cache> rule_cache = std::make_unique<fw_rule_cache>();
  size_t reads = 0;
  size_t mapping_look_ups = 0;
  size_t table_look_ups = 0;
};
Process* process = nullptr;

}  // namespace

// Declared static by unwind.h.
static long fw_read_user(void* to, fw_u32 size, fw_u64 address) {
  ++process->reads;
  auto* out = static_cast<fw_u8*>(to);
  for (fw_u32 i = 0; i < size; ++i) {
    const auto page = process->pages.find((address + i) & ~fw_u64{4095});
    if (page == process->pages.end()) return -14;
    out[i] = page->second[(address + i) & 4095];
  }
  return 0;
}

static long fw_look_up_mapping(fw_walk*, fw_u64 address, fw_mapping* to) {
  ++process->mapping_look_ups;
  if (process->mappings_unreadable) return -1;
  to->state = FW_MAPPING_NONE;
  for (const fw_mapping& mapping : process->mappings) {
    if (address >= mapping.start && address < mapping.end) *to = mapping;
  }
  return 0;
}

static const fw_table* fw_table_at(fw_u32 index) {
  ++process->table_look_ups;
  return index < process->tables.size() ? &process->tables[index] : nullptr;
}

static const fw_u8* fw_slab_at(fw_u32 number) {
  if (number >= process->slabs.size() || process->slabs[number].empty()) return nullptr;
  return reinterpret_cast<const fw_u8*>(process->slabs[number].data());
}

static fw_rule_cache* fw_rule_cache_here() { return process->rule_cache.get(); }

namespace firewatch::bpf {
namespace {

inline constexpr fw_u64 kStack = 0x7ffc00000000;
inline constexpr fw_u64 kCode = 0x400000;       // file 7, table 0
inline constexpr fw_u64 kCodeOffset = 0x10000;  // of the file
inline constexpr fw_u64 kCodeEnd = 0x500000;
inline constexpr fw_u32 kFile = 7;
inline constexpr fw_u64 kUnchanged = 0x8000;
inline constexpr fw_u64 kRsp = FW_REGISTER_RSP;
inline constexpr fw_u64 kRbp = FW_REGISTER_RBP;
inline constexpr fw_u64 kRbx = FW_REGISTER_RBX;

inline fw_u64 FileFrame(fw_u64 file, fw_u64 offset) {
  return FW_FRAME_FILE << FW_FRAME_KIND_SHIFT | file << FW_FRAME_FILE_OFFSET_BITS | offset;
}
inline fw_u64 CodeFrame(fw_u64 address) { return FileFrame(kFile, address - kCode + kCodeOffset); }

// A rule as its word: written from the text of unwind_table.h, not through the struct.
struct Rule {
  fw_u64 base = kRsp;
  fw_u64 cfa = FW_CFA_OFFSET;
  fw_u64 ra_register = 0;
  fw_u64 ra = FW_RA_AT_CFA;
  fw_u64 saved_from_rbp = 0;
  fw_u64 two_slots = 0;
  fw_u64 offset = 8;
  fw_u64 rbp = kUnchanged;
  fw_u64 rbx = kUnchanged;
  fw_u64 slot = 0;  // the second one

  fw_u64 word() const {
    return base | cfa << 4 | ra_register << 8 | ra << 12 | saved_from_rbp << 14 | two_slots << 15 |
           (offset & 0xffff) << 16 | (rbp & 0xffff) << 32 | (rbx & 0xffff) << 48;
  }
};
const Rule kRoot{.cfa = FW_CFA_ROOT};
const Rule kNone{.base = 0, .cfa = FW_CFA_NONE, .offset = 0, .rbp = 0, .rbx = 0};
inline Rule RspPlus(fw_u64 offset) { return {.offset = offset}; }

// File offset -> rule that holds from there on.
using Rows = std::map<fw_u64, Rule>;

// A table as the loader lays it out: rules and directory in one slab, pages in another.
class TableBuilder {
 public:
  // Rules that come first keep the others out of the numbers that fit into a byte.
  explicit TableBuilder(fw_u32 unused_slots = 0) : rules_(1 + unused_slots) {}

  void Load(const Rows& rows, Process& to, fw_u32 index) {
    const fw_u64 first = rows.begin()->first >> FW_PAGE_SHIFT;
    const fw_u64 last = rows.rbegin()->first >> FW_PAGE_SHIFT;
    const auto directory_slab = static_cast<fw_u32>(to.slabs.size());
    for (fw_u64 page = first; page <= last; ++page) AddPage(rows, page, directory_slab + 1);
    to.slabs.push_back(rules_);
    to.slabs.back().insert(to.slabs.back().end(), directory_.begin(), directory_.end());
    to.slabs.back().resize(FW_SLAB_BYTES / 8);
    pages_.resize(FW_SLAB_BYTES, 0xff);
    to.slabs.emplace_back(FW_SLAB_BYTES / 8);
    std::memcpy(to.slabs.back().data(), pages_.data(), FW_SLAB_BYTES);
    if (to.tables.size() <= index) to.tables.resize(index + 1);
    to.tables[index] = {.state = FW_TABLE_READY,
                        .first_page = static_cast<fw_u32>(first),
                        .page_count = static_cast<fw_u32>(directory_.size()),
                        .rule_slots = static_cast<fw_u32>(rules_.size()),
                        .directory = Location(directory_slab, rules_.size() * 8),
                        .rules = Location(directory_slab, 0),
                        .last_used_s = 0,
                        .uses = 0};
  }

 private:
  static fw_location Location(fw_u32 slab, size_t byte) {
    return slab << FW_LOCATION_UNITS_SHIFT | static_cast<fw_u32>(byte / 8);
  }
  fw_u16 SlotOf(const Rule& rule) {
    if (rule.cfa == FW_CFA_NONE) return 0;
    const auto [known, added] =
        slots_.try_emplace({rule.word(), rule.slot}, static_cast<fw_u16>(rules_.size()));
    if (added) rules_.push_back(rule.word());
    if (added && rule.two_slots) rules_.push_back(rule.slot);
    return known->second;
  }
  void Put16(size_t value) {
    pages_.push_back(static_cast<fw_u8>(value));
    pages_.push_back(static_cast<fw_u8>(value >> 8));
  }
  void AddPage(const Rows& rows, fw_u64 page, fw_u32 slab) {
    std::map<fw_u64, fw_u16> places;  // place on the page -> slot
    const fw_u64 start = page << FW_PAGE_SHIFT;
    const auto before = rows.upper_bound(start);
    places[0] = before == rows.begin() ? fw_u16{0} : SlotOf(std::prev(before)->second);
    for (auto row = before; row != rows.end() && row->first < start + FW_PAGE_ROWS_MAX; ++row) {
      places[row->first - start] = SlotOf(row->second);
    }
    std::vector<fw_u16> local;
    for (const auto& [place, slot] : places) {
      if (slot >= FW_DIRECT_RULES && std::find(local.begin(), local.end(), slot) == local.end()) {
        local.push_back(slot);
      }
    }
    const bool wide = local.size() > FW_LOCAL_RULES;
    const fw_u64 local_rules = wide ? 0 : local.size();
    directory_.push_back(Location(slab, pages_.size()) | fw_u64{places.size()} << 32 |
                         local_rules << 48 | fw_u64{wide} << 56);
    for (const auto& [place, slot] : places) Put16(place);
    for (const auto& [place, slot] : places) {
      if (wide) {
        Put16(slot);
      } else if (slot < FW_DIRECT_RULES) {
        pages_.push_back(static_cast<fw_u8>(slot));
      } else {
        const auto index = std::find(local.begin(), local.end(), slot) - local.begin();
        pages_.push_back(static_cast<fw_u8>(FW_DIRECT_RULES + index));
      }
    }
    if (!wide && places.size() % 2 == 1) pages_.push_back(0);
    if (!wide) {
      for (const fw_u16 slot : local) Put16(slot);
    }
    while (pages_.size() % 8 != 0) pages_.push_back(0);
  }

  std::map<std::pair<fw_u64, fw_u64>, fw_u16> slots_;
  std::vector<fw_u64> rules_;
  std::vector<fw_u64> directory_;
  std::vector<fw_u8> pages_;
};

class UnwindTest : public ::testing::Test {
 protected:
  UnwindTest() {
    process = &process_;
    use_tables = true;
    walk_ = std::make_unique<fw_walk>();
    rsp() = kStack;
  }

  void Write(fw_u64 address, fw_u64 value) {
    for (size_t i = 0; i < sizeof(value); ++i) WriteByte(address + i, value >> (8 * i) & 0xff);
  }
  void WriteByte(fw_u64 address, fw_u64 value) {
    auto& page = process_.pages[address & ~fw_u64{4095}];
    page.resize(4096);
    page[address & 4095] = static_cast<fw_u8>(value);
  }
  void WriteBytes(fw_u64 address, std::initializer_list<fw_u8> bytes) {
    for (const fw_u8 byte : bytes) WriteByte(address++, byte);
  }
  // Frames hold an address inside the call: one less than where it returns to.
  static fw_u64 Return(fw_u64 frame) { return frame + 1; }

  fw_mapping& AddMapping(fw_u64 start, fw_u64 end, fw_u32 state) {
    fw_mapping mapping{};
    mapping.start = start;
    mapping.end = end;
    mapping.state = state;
    mapping.table = FW_NO_TABLE;
    return process_.mappings.emplace_back(mapping);
  }
  // kCode .. kCodeEnd is file kFile from kCodeOffset on; rules by address.
  void AddCode(const std::map<fw_u64, Rule>& rules) {
    fw_mapping& mapping = AddMapping(kCode, kCodeEnd, FW_MAPPING_FILE);
    mapping.file_offset = kCodeOffset;
    mapping.file_id = kFile;
    mapping.table = 0;
    if (rules.empty()) return;
    Rows rows;
    for (const auto& [address, rule] : rules) rows[address - kCode + kCodeOffset] = rule;
    TableBuilder().Load(rows, process_, 0);
  }

  std::vector<fw_u64> Walk(fw_u64 ip = kCode) {
    frames_.assign(FW_WALK_FRAMES, 0xdead);
    walk_->ip = ip;
    fw_walk_begin(walk_.get(), first_, FW_MAX_USER_FRAMES);
    size_t steps = 0;
    while (!fw_walk_step(walk_.get(), frames_.data(), process_.rule_cache.get())) {
      if (++steps > 2000) {
        ADD_FAILURE() << "the walk does not end";
        break;
      }
    }
    EXPECT_LE(walk_->next, FW_WALK_FRAMES);
    return {frames_.begin() + first_, frames_.begin() + walk_->next};
  }
  fw_stack_end end() const { return static_cast<fw_stack_end>(walk_->end); }
  fw_u64& reg(fw_u64 number) { return walk_->registers[number]; }
  fw_u64& rsp() { return reg(kRsp); }
  fw_u64& rbp() { return reg(kRbp); }

  Process process_;
  std::vector<fw_u64> frames_;
  std::unique_ptr<fw_walk> walk_;
  fw_u32 first_ = 0;
};

}  // namespace
}  // namespace firewatch::bpf
