// SPDX-License-Identifier: Apache-2.0
#include "agent/enforce/address_table.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <map>
#include <span>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/hash.h"

namespace firewatch::agent {
namespace {

constexpr uint32_t kPageShift = 20;   // a page: a /12
constexpr uint32_t kBlockShift = 12;  // a block: a /20
constexpr uint32_t kQuarters = 4;     // of a page
constexpr uint32_t kQuarterBlocks = 64;
constexpr uint32_t kBlockEntries = 16;

// Walks runs in order of address.
class Table4 {
 public:
  Table4(const std::vector<Run<uint32_t>>& runs, ImageWriter* writer)
      : runs_(runs), writer_(writer) {}

  void Write(fw_addresses* out) {
    for (uint32_t page = 0; page < FW_PAGE_COUNT; ++page) {
      const fw_page made = Page(page << kPageShift);
      writer_->At<fw_page>(size_t{out->pages} * 8)[page] = made;
    }
    out->blocks = writer_->Append(blocks_);
    out->ordinals = writer_->Append(ordinals_);
    out->details = writer_->Append(details_);
    std::vector<fw_image_place> places;
    for (const std::string* tail : tails_) {
      places.push_back(writer_->AppendWithinSlab(
          std::span(reinterpret_cast<const uint8_t*>(tail->data()), tail->size())));
    }
    for (uint32_t& entry : entries_) {
      if ((entry & FW_ENTRY_TAIL) != 0) entry = FW_ENTRY_TAIL | places[entry & ~FW_ENTRY_TAIL];
    }
    out->entries = writer_->Append(entries_);
  }

 private:
  // What a /20 names, per /24: vectors, or FW_ENTRY_TAIL and a number in tails_.
  using Entries = std::array<uint32_t, kBlockEntries>;

  // The run of `address`; addresses only rise.
  const Run<uint32_t>& RunAt(uint32_t address) {
    while (next_ < runs_.size() && runs_[next_].start <= address) ++next_;
    return runs_[next_ - 1];
  }
  // Whether all of [address, address + 2^shift) is in the run of its first address.
  bool Whole(uint32_t address, uint32_t shift) {
    RunAt(address);
    return next_ == runs_.size() || (runs_[next_].start - address) >> shift != 0;
  }

  fw_page Page(uint32_t start) {
    fw_page page{};
    if (Whole(start, kPageShift) && RunAt(start).vector == 0) return page;
    std::vector<fw_block> blocks;
    std::vector<uint8_t> ordinals;
    std::vector<fw_detail> details;
    for (uint32_t quarter = 0; quarter < kQuarters; ++quarter) {
      std::vector<Entries> used;
      for (uint32_t i = 0; i < kQuarterBlocks; ++i) {
        const Entries entries = Block(start + ((quarter * kQuarterBlocks + i) << kBlockShift));
        if (entries == Entries{}) continue;
        page.occupied[quarter] |= uint64_t{1} << i;
        used.push_back(entries);
      }
      const uint32_t vector = MostFrequent(used);
      page.vector[quarter] = vector;
      page.before[quarter] = static_cast<uint8_t>(blocks.size());
      for (const Entries& entries : used) {
        const bool plain = vector != 0 && OnlyVector(entries) == vector;
        blocks.push_back(plain ? Present(entries) : fw_block{0});
        // A page has 256 blocks, and so at most as many details.
        ordinals.push_back(plain ? uint8_t{0} : static_cast<uint8_t>(details.size()));
        if (!plain) details.push_back(Detail(entries));
      }
    }
    // Equal pages share their blocks: a /8 of one rule is sixteen equal pages.
    std::string key = Bytes(blocks);
    key += Bytes(ordinals);
    key += Bytes(details);
    const auto [found, added] =
        page_places_.try_emplace(std::move(key), static_cast<uint32_t>(blocks_.size()),
                                 static_cast<uint32_t>(details_.size()));
    if (added) {
      blocks_.insert(blocks_.end(), blocks.begin(), blocks.end());
      ordinals_.insert(ordinals_.end(), ordinals.begin(), ordinals.end());
      details_.insert(details_.end(), details.begin(), details.end());
    }
    page.blocks = found->second.first;
    page.details = found->second.second;
    return page;
  }

  Entries Block(uint32_t start) {
    Entries entries{};
    if (Whole(start, kBlockShift)) {
      entries.fill(RunAt(start).vector);
      return entries;
    }
    for (uint32_t i = 0; i < kBlockEntries; ++i) {
      const uint32_t address = start + (i << 8);
      entries[i] = Whole(address, 8) ? RunAt(address).vector : Tail(address);
    }
    return entries;
  }

  static fw_block Present(const Entries& entries) {
    fw_block present = 0;
    for (uint32_t i = 0; i < kBlockEntries; ++i) {
      if (entries[i] != 0) present = static_cast<fw_block>(present | 1u << i);
    }
    return present;
  }
  // The one vector of all /24s that have any; 0 when there are several, or a tail.
  static uint32_t OnlyVector(const Entries& entries) {
    uint32_t vector = 0;
    for (const uint32_t entry : entries) {
      if (entry == 0) continue;
      if ((entry & FW_ENTRY_TAIL) != 0 || (vector != 0 && vector != entry)) return 0;
      vector = entry;
    }
    return vector;
  }
  // The vector that lets most blocks do without a detail; 0 when none does.
  static uint32_t MostFrequent(const std::vector<Entries>& blocks) {
    std::map<uint32_t, size_t> counts;
    uint32_t best = 0;
    for (const Entries& entries : blocks) {
      const uint32_t vector = OnlyVector(entries);
      if (vector == 0) continue;
      if (++counts[vector] > (best == 0 ? 0 : counts[best])) best = vector;
    }
    return best;
  }

  fw_detail Detail(const Entries& entries) {
    if (std::all_of(entries.begin(), entries.end(), [&](uint32_t e) { return e == entries[0]; }) &&
        (entries[0] & FW_ENTRY_TAIL) == 0) {
      return {0, entries[0]};
    }
    std::vector<uint32_t> used;
    std::copy_if(entries.begin(), entries.end(), std::back_inserter(used),
                 [](uint32_t entry) { return entry != 0; });
    const auto [found, added] =
        entry_places_.try_emplace(Bytes(used), static_cast<uint32_t>(entries_.size()));
    if (added) entries_.insert(entries_.end(), used.begin(), used.end());
    return {Present(entries), found->second};
  }

  uint32_t Tail(uint32_t address) {
    std::vector<uint8_t> starts = {0};
    std::vector<uint32_t> vectors = {RunAt(address).vector};
    for (; next_ < runs_.size() && runs_[next_].start >> 8 == address >> 8; ++next_) {
      if (runs_[next_].start == address) continue;
      starts.push_back(static_cast<uint8_t>(runs_[next_].start));
      vectors.push_back(runs_[next_].vector);
    }
    std::string bytes;
    bytes.push_back(static_cast<char>(starts.size()));
    bytes.push_back(static_cast<char>(starts.size() >> 8));
    bytes += Bytes(starts);
    bytes.resize((bytes.size() + 3) / 4 * 4);
    bytes += Bytes(vectors);
    // Equal tails are common: every /24 with one host of one list at .1.
    const auto [found, added] =
        tail_numbers_.try_emplace(std::move(bytes), static_cast<uint32_t>(tails_.size()));
    if (added) tails_.push_back(&found->first);
    return FW_ENTRY_TAIL | found->second;
  }

  template <typename T>
  static std::string Bytes(const std::vector<T>& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
  }

  const std::vector<Run<uint32_t>>& runs_;
  ImageWriter* writer_;
  size_t next_ = 0;
  std::vector<fw_block> blocks_;
  std::vector<uint8_t> ordinals_;
  std::vector<fw_detail> details_;
  std::vector<uint32_t> entries_;
  std::map<std::string, std::pair<uint32_t, uint32_t>> page_places_;  // first block, first detail
  base::StringMap<uint32_t> entry_places_;
  std::map<std::string, uint32_t> tail_numbers_;  // a map: its keys stay where they are
  std::vector<const std::string*> tails_;
};

// The levels above sorted keys: each node's keys are the first keys of its second to ninth child.
void WriteTree(const std::vector<uint64_t>& keys, ImageWriter* writer, fw_addresses* out) {
  constexpr uint64_t kFill = UINT64_MAX;
  std::vector<std::vector<uint64_t>> levels;
  // Of each node of the level in work, the smallest key below it.
  std::vector<uint64_t> firsts;
  std::vector<uint64_t> level = keys;
  for (size_t i = 0; i < keys.size(); i += FW_TREE_KEYS) firsts.push_back(keys[i]);
  for (;;) {
    level.resize((level.size() + FW_TREE_KEYS - 1) / FW_TREE_KEYS * FW_TREE_KEYS, kFill);
    levels.push_back(std::move(level));
    if (firsts.size() == 1) break;
    level.clear();
    std::vector<uint64_t> upper;
    for (size_t node = 0; node < firsts.size(); node += FW_TREE_KEYS + 1) {
      upper.push_back(firsts[node]);
      for (size_t key = 1; key <= FW_TREE_KEYS; ++key) {
        level.push_back(node + key < firsts.size() ? firsts[node + key] : kFill);
      }
    }
    firsts = std::move(upper);
  }
  CHECK(levels.size() <= FW_TREE_LEVELS_MAX);
  out->levels = static_cast<uint32_t>(levels.size());
  for (size_t i = 0; i < levels.size(); ++i) {
    const std::vector<uint64_t>& from = levels[levels.size() - 1 - i];
    // A node is 64 bytes and aligned so: one cache line, never across slabs.
    out->level[i] = writer->Append(from, FW_TREE_KEYS * 8);
    out->nodes[i] = static_cast<uint32_t>(from.size() / FW_TREE_KEYS);
  }
}

}  // namespace

void WriteTable4(const std::vector<Run<uint32_t>>& runs, ImageWriter* writer, fw_addresses* out) {
  Table4(runs, writer).Write(out);
}

void WriteTable6(const std::vector<Run<Address6>>& runs, ImageWriter* writer, fw_addresses* out) {
  if (runs.size() == 1 && runs[0].vector == 0) return;  // no rule names an IPv6 address
  std::vector<uint64_t> highs, lows;
  std::vector<uint32_t> entries, low_vectors;
  std::vector<fw_low_tail> tails;
  const auto begin_high = [&](uint64_t high, uint32_t entry) {
    if (!highs.empty() && highs.back() == high) {
      entries.back() = entry;
    } else {
      highs.push_back(high);
      entries.push_back(entry);
    }
  };
  uint32_t before = 0;  // the vector that goes on from the /64s before
  for (size_t i = 0; i < runs.size();) {
    const uint64_t high = runs[i].start.high;
    size_t end = i;
    while (end < runs.size() && runs[end].start.high == high) ++end;
    if (end - i == 1 && runs[i].start.low == 0) {
      begin_high(high, runs[i].vector);
    } else {
      // Runs begin inside this /64.
      begin_high(high, FW_ENTRY_TAIL | static_cast<uint32_t>(tails.size()));
      tails.push_back({static_cast<uint32_t>(lows.size()), 0});
      if (runs[i].start.low != 0) {
        lows.push_back(0);
        low_vectors.push_back(before);
      }
      for (size_t k = i; k < end; ++k) {
        lows.push_back(runs[k].start.low);
        low_vectors.push_back(runs[k].vector);
      }
      tails.back().count = static_cast<uint32_t>(lows.size()) - tails.back().first;
      if (high != UINT64_MAX) begin_high(high + 1, runs[end - 1].vector);
    }
    before = runs[end - 1].vector;
    i = end;
  }
  WriteTree(highs, writer, out);
  out->runs = static_cast<uint32_t>(highs.size());
  out->run_entries = writer->Append(entries);
  out->low_tails = writer->Append(tails);
  out->lows = writer->Append(lows);
  out->low_vectors = writer->Append(low_vectors);
}

}  // namespace firewatch::agent
