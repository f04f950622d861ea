// SPDX-License-Identifier: Apache-2.0
#include "agent/enforce/address_table.h"

#include <algorithm>
#include <map>
#include <span>
#include <string>

#include "base/check.h"
#include "base/hash.h"

namespace firewatch::agent {
namespace {

constexpr uint32_t kPageShift = 20;   // a page: a /12
constexpr uint32_t kBlockShift = 13;  // a block: a /19
constexpr uint32_t kBlockEntries = 32;

// Walks runs in order of address.
class Table4 {
 public:
  Table4(const std::vector<Run<uint32_t>>& runs, ImageWriter* writer)
      : runs_(runs), writer_(writer) {}

  void Write(fw_addresses* out) {
    std::vector<fw_page> pages;
    for (uint64_t start = 0; start < uint64_t{1} << 32; start += 1u << kPageShift) {
      pages.push_back(Page(static_cast<uint32_t>(start)));
    }
    CHECK(pages.size() == FW_PAGE_COUNT);
    // Aligned, so that nothing crosses a slab.
    out->pages = writer_->Append(pages, sizeof(fw_page) * 2);
    out->blocks = writer_->Append(blocks_);
    out->entries = writer_->Append(entries_);
  }

 private:
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
    for (uint32_t half = 0; half < 2; ++half) {
      std::vector<fw_block> blocks;
      for (uint32_t i = 0; i < 64; ++i) {
        const fw_block block = Block(start + ((half * 64 + i) << kBlockShift));
        if (block.present == 0 && block.base == 0) continue;
        page.occupied[half] |= uint64_t{1} << i;
        blocks.push_back(block);
      }
      // Equal halves share their blocks: a /8 of one rule is sixteen equal pages.
      const std::string key(reinterpret_cast<const char*>(blocks.data()),
                            blocks.size() * sizeof(fw_block));
      const auto [found, added] =
          block_places_.try_emplace(key, static_cast<uint32_t>(blocks_.size()));
      if (added) blocks_.insert(blocks_.end(), blocks.begin(), blocks.end());
      page.base[half] = found->second;
    }
    return page;
  }

  fw_block Block(uint32_t start) {
    if (Whole(start, kBlockShift)) return {0, RunAt(start).vector};
    fw_block block{};
    std::vector<uint32_t> entries;
    for (uint32_t i = 0; i < kBlockEntries; ++i) {
      const uint32_t address = start + (i << 8);
      const uint32_t entry = Whole(address, 8) ? RunAt(address).vector : Tail(address);
      if (entry == 0) continue;
      block.present |= 1u << i;
      entries.push_back(entry);
    }
    const std::string key(reinterpret_cast<const char*>(entries.data()), entries.size() * 4);
    const auto [found, added] =
        entry_places_.try_emplace(key, static_cast<uint32_t>(entries_.size()));
    if (added) entries_.insert(entries_.end(), entries.begin(), entries.end());
    block.base = found->second;
    return block;
  }

  uint32_t Tail(uint32_t address) {
    std::vector<uint8_t> starts = {0};
    std::vector<uint32_t> vectors = {RunAt(address).vector};
    for (; next_ < runs_.size() && runs_[next_].start >> 8 == address >> 8; ++next_) {
      if (runs_[next_].start == address) continue;
      starts.push_back(static_cast<uint8_t>(runs_[next_].start));
      vectors.push_back(runs_[next_].vector);
    }
    std::vector<uint8_t> bytes;
    bytes.push_back(static_cast<uint8_t>(starts.size()));
    bytes.push_back(static_cast<uint8_t>(starts.size() >> 8));
    bytes.insert(bytes.end(), starts.begin(), starts.end());
    bytes.resize((bytes.size() + 3) / 4 * 4);
    const size_t at = bytes.size();
    bytes.resize(at + vectors.size() * 4);
    std::memcpy(bytes.data() + at, vectors.data(), vectors.size() * 4);
    // Equal tails are common: every /24 with one host of one list at .1.
    const std::string key(bytes.begin(), bytes.end());
    const auto [found, added] = tail_places_.try_emplace(key, 0);
    if (added) found->second = writer_->AppendWithinSlab(bytes);
    return FW_ENTRY_TAIL | found->second;
  }

  const std::vector<Run<uint32_t>>& runs_;
  ImageWriter* writer_;
  size_t next_ = 0;
  std::vector<fw_block> blocks_;
  std::vector<uint32_t> entries_;
  base::StringMap<uint32_t> block_places_, entry_places_, tail_places_;
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
