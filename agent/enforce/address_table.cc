// SPDX-License-Identifier: Apache-2.0
#include "agent/enforce/address_table.h"

#include <algorithm>
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
  // What a /20 names.
  struct Block {
    uint32_t only = 0;  // the vector of all its /24s that have any; 0: several, or a tail
    fw_block present = 0;
    // Per /24: a vector, or FW_ENTRY_TAIL and a number in tails_. Empty: all `only`.
    std::vector<uint32_t> entries;
  };

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
    if (!Whole(start, kPageShift)) return MakePage(start);
    const uint32_t vector = RunAt(start).vector;
    if (vector == 0) return {};
    const auto [found, added] = whole_pages_.try_emplace(vector);
    if (added) found->second = MakePage(start);
    return found->second;
  }

  fw_page MakePage(uint32_t start) {
    fw_page page{};
    std::vector<fw_block> blocks;
    std::vector<uint8_t> ordinals;
    std::vector<fw_detail> details;
    for (uint32_t quarter = 0; quarter < kQuarters; ++quarter) {
      const std::vector<Block> used =
          Quarter(start + ((quarter * kQuarterBlocks) << kBlockShift), &page.occupied[quarter]);
      const uint32_t vector = MostFrequent(used);
      page.vector[quarter] = vector;
      page.before[quarter] = static_cast<uint8_t>(blocks.size());
      for (const Block& block : used) {
        const bool plain = vector != 0 && block.only == vector;
        blocks.push_back(plain ? block.present : fw_block{0});
        // A page has 256 blocks, and so at most as many details.
        ordinals.push_back(plain ? uint8_t{0} : static_cast<uint8_t>(details.size()));
        if (!plain) details.push_back(Detail(block));
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

  // The blocks of a quarter in which rules name anything.
  std::vector<Block> Quarter(uint32_t start, uint64_t* occupied) {
    std::vector<Block> used;
    for (uint32_t i = 0; i < kQuarterBlocks;) {
      const uint32_t address = start + (i << kBlockShift);
      const uint32_t vector = RunAt(address).vector;
      // As many as the run goes on for.
      const uint32_t left = kQuarterBlocks - i;
      const uint32_t same = next_ == runs_.size()
                                ? left
                                : std::min(left, (runs_[next_].start - address) >> kBlockShift);
      if (same > 0 && vector == 0) {
        i += same;
        continue;
      }
      *occupied |= uint64_t{1} << i++;
      used.push_back(same > 0 ? Block{vector, UINT16_MAX, {}} : MixedBlock(address));
    }
    return used;
  }

  Block MixedBlock(uint32_t start) {
    Block block;
    bool is_plain = true;
    for (uint32_t i = 0; i < kBlockEntries; ++i) {
      const uint32_t address = start + (i << 8);
      const uint32_t entry = Whole(address, 8) ? RunAt(address).vector : Tail(address);
      if (entry == 0) continue;
      block.present = static_cast<fw_block>(block.present | 1u << i);
      block.entries.push_back(entry);
      is_plain = is_plain && (entry & FW_ENTRY_TAIL) == 0 && entry == block.entries[0];
    }
    if (is_plain && !block.entries.empty()) block.only = block.entries[0];
    return block;
  }

  // The vector that lets most blocks do without a detail; 0 when none does.
  static uint32_t MostFrequent(const std::vector<Block>& blocks) {
    std::vector<std::pair<uint32_t, size_t>> counts;  // nearly always of one
    for (const Block& block : blocks) {
      if (block.only == 0) continue;
      const auto found = std::find_if(counts.begin(), counts.end(),
                                      [&](const auto& count) { return count.first == block.only; });
      if (found != counts.end()) {
        ++found->second;
      } else {
        counts.emplace_back(block.only, 1);
      }
    }
    const auto best =
        std::max_element(counts.begin(), counts.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    return best == counts.end() ? 0 : best->first;
  }

  fw_detail Detail(const Block& block) {
    if (block.entries.empty()) return {0, block.only};
    const auto [found, added] =
        entry_places_.try_emplace(Bytes(block.entries), static_cast<uint32_t>(entries_.size()));
    if (added) entries_.insert(entries_.end(), block.entries.begin(), block.entries.end());
    return {block.present, found->second};
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
  std::map<uint32_t, fw_page> whole_pages_;                           // by vector
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
