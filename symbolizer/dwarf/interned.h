// SPDX-License-Identifier: Apache-2.0
// Two small hash tables, above all for the working memory of one unit: they are cleared and filled
// again for each unit, so they keep their memory, and hold indexes instead of the records
// themselves. Most units are small, some are large: what a small one uses begins small again, or it
// would pay for clearing the place of a large one.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "symbolizer/expect.h"
#include "symbolizer/room.h"

namespace firewatch::symbolizer::dwarf {

// Odd, and another one in each process: whoever makes a file cannot choose names or addresses that
// all belong in one place, where finding them would take quadratic time. What is numbered by these
// tables does not depend on it.
extern const uint64_t kHashMultiplier;

inline uint64_t MixHash(uint64_t seed, uint64_t value) {
  const uint64_t product = (seed ^ value) * kHashMultiplier;
  return product ^ (product >> 32);
}

// Distinct records by index in order of first use. T has operator== and `uint64_t Hash() const`.
// At most so many of a hundred places are taken: half, for what is looked up by the million.
template <typename T, size_t kMaxTaken = 50>
class Interned {
 public:
  // For records of a whole build.
  void ReserveRoom() { symbolizer::ReserveRoom(&items_); }
  void Clear() {
    StartOver(items_.size());
    items_.clear();
  }
  uint32_t Add(const T& item) {
    if (places_.size() * kMaxTaken < 100 * (items_.size() + 1)) Grow();
    const size_t place = PlaceOf(item);
    if (places_[place] != 0) return places_[place] - 1;
    if (items_.size() == items_.capacity()) items_.reserve(places_.size() * kMaxTaken / 100);
    items_.push_back(item);
    places_[place] = static_cast<uint32_t>(items_.size());
    return static_cast<uint32_t>(items_.size() - 1);
  }
  // Its index, when it is there; nothing is found after Close.
  std::optional<uint32_t> Find(const T& item) const {
    if (places_.empty()) return std::nullopt;
    const uint32_t found = places_[PlaceOf(item)];
    return found == 0 ? std::nullopt : std::optional(found - 1);
  }
  // The records stay; gives back the memory of what finds them, which Add would make again.
  void Close() { std::vector<uint32_t>().swap(places_); }
  // Places looked at to find `item`, in a table that is not empty.
  size_t StepsTo(const T& item) const {
    const size_t mask = places_.size() - 1;
    return ((PlaceOf(item) - static_cast<size_t>(item.Hash())) & mask) + 1;
  }
  size_t size() const { return items_.size(); }
  const T& operator[](size_t index) const { return items_[index]; }
  std::span<const T> items() const { return items_; }
  // Gives the records away, in exchange for the memory of `taken`; the table is empty afterwards.
  void TakeInto(std::vector<T>* taken) {
    StartOver(items_.size());
    taken->clear();
    items_.swap(*taken);
  }

 private:
  // Where `item` is, or the free place where it belongs.
  size_t PlaceOf(const T& item) const {
    const size_t mask = places_.size() - 1;
    size_t place = static_cast<size_t>(item.Hash()) & mask;
    while (places_[place] != 0 && !(items_[places_[place] - 1] == item)) place = (place + 1) & mask;
    return place;
  }
  // With free places, as many as `items` need.
  void StartOver(size_t items) {
    if (items == 0) return;  // all are free
    const size_t needed = std::bit_ceil(100 * (items + 1) / kMaxTaken + 1);
    places_.resize(std::min(places_.size(), std::max(kSmall, needed)));
    std::fill(places_.begin(), places_.end(), 0);
  }
  // Clearing so many places costs less than growing to them.
  static constexpr size_t kSmall = 512;
  void Grow() {
    size_t size = std::max<size_t>(64, places_.size() * 2);
    while (size * kMaxTaken < 100 * (items_.size() + 1)) size *= 2;
    places_.assign(size, 0);
    for (size_t i = 0; i < items_.size(); ++i) {
      size_t place = static_cast<size_t>(items_[i].Hash()) & (size - 1);
      while (places_[place] != 0) place = (place + 1) & (size - 1);
      places_[place] = static_cast<uint32_t>(i + 1);
    }
  }
  std::vector<T> items_;
  std::vector<uint32_t> places_;  // index + 1; 0: free
};

// From 64-bit keys to indexes. What is looked up here lies close together (code of one program,
// strings of one section): keys within 2 GB of the first one take 8 bytes, others are on their own.
class IndexMap {
 public:
  void Clear() {
    // clear() would visit all places that it ever had, and so does `= {}`.
    if (!far_.empty()) std::unordered_map<uint64_t, uint32_t>().swap(far_);
    if (size_ == 0) return;
    entries_.resize(std::min(entries_.size(), PlacesFor(size_ + 1)));
    std::fill(entries_.begin(), entries_.end(), Entry{});
    size_ = 0;
  }
  // The value of `key`, and whether it was there; a new one is `value`.
  std::pair<uint32_t, bool> FindOrAdd(uint64_t key, uint32_t value) {
    if (size_ == 0) base_ = key - kFree / 2;
    const uint64_t near = key - base_;
    if (near >= kFree) {
      const auto [found, added] = far_.try_emplace(key, value);
      return {found->second, !added};
    }
    if (entries_.size() * 3 < 4 * (size_ + 1)) Grow();
    Entry& entry = PlaceOf(static_cast<uint32_t>(near));
    if (entry.key == near) return {entry.value, true};
    entry = {static_cast<uint32_t>(near), value};
    ++size_;
    return {value, false};
  }
  // It will be looked up soon: asks for its memory.
  void Expect(uint64_t key) const {
    if (size_ == 0) return;
    const auto near = static_cast<uint32_t>(key - base_);
    ExpectRead(&entries_[static_cast<size_t>(MixHash(0, near)) & (entries_.size() - 1)]);
  }
  // nullptr when the key is not there. Valid until the next change.
  uint32_t* Find(uint64_t key) {
    if (size_ == 0) return nullptr;
    const uint64_t near = key - base_;
    if (near >= kFree) {
      const auto found = far_.find(key);
      return found == far_.end() ? nullptr : &found->second;
    }
    Entry& entry = PlaceOf(static_cast<uint32_t>(near));
    return entry.key == near ? &entry.value : nullptr;
  }

 private:
  static constexpr uint32_t kFree = UINT32_MAX;
  struct Entry {
    uint32_t key = kFree;  // from base_
    uint32_t value = 0;
  };
  // Three quarters are taken at most.
  static size_t PlacesFor(size_t entries) { return std::bit_ceil((entries * 4 + 2) / 3); }
  Entry& PlaceOf(uint32_t near) {
    const size_t mask = entries_.size() - 1;
    size_t place = static_cast<size_t>(MixHash(0, near)) & mask;
    while (entries_[place].key != near && entries_[place].key != kFree) {
      place = (place + 1) & mask;
    }
    return entries_[place];
  }
  void Grow() {
    std::vector<Entry> old(std::max<size_t>(64, entries_.size() * 2));
    old.swap(entries_);
    for (const Entry& entry : old) {
      if (entry.key != kFree) PlaceOf(entry.key) = entry;
    }
  }
  std::vector<Entry> entries_;
  size_t size_ = 0;  // of entries_; the first key is always one
  uint64_t base_ = 0;
  std::unordered_map<uint64_t, uint32_t> far_;
};

}  // namespace firewatch::symbolizer::dwarf
