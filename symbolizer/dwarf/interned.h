// SPDX-License-Identifier: Apache-2.0
// Two small hash tables for the working memory of one unit: they are cleared and filled again for
// each unit, so they keep their memory, and hold indexes instead of the records themselves. Most
// units are small, some are large: what a small one uses begins small again, or it would pay for
// clearing the place of a large one.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace firewatch::symbolizer::dwarf {

inline uint64_t MixHash(uint64_t seed, uint64_t value) {
  const uint64_t product = (seed ^ value) * 0x9e3779b97f4a7c15;
  return product ^ (product >> 32);
}

// Distinct records by index in order of first use. T has operator== and `uint64_t Hash() const`.
template <typename T>
class Interned {
 public:
  void Clear() {
    StartOver(items_.size());
    items_.clear();
  }
  uint32_t Add(const T& item) {
    if (places_.size() < 2 * (items_.size() + 1)) Grow();
    const size_t mask = places_.size() - 1;
    size_t place = static_cast<size_t>(item.Hash()) & mask;
    while (places_[place] != 0) {
      const uint32_t index = places_[place] - 1;
      if (items_[index] == item) return index;
      place = (place + 1) & mask;
    }
    if (items_.size() == items_.capacity()) items_.reserve(places_.size() / 2);
    items_.push_back(item);
    places_[place] = static_cast<uint32_t>(items_.size());
    return static_cast<uint32_t>(items_.size() - 1);
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
  // With free places, as many as `items` need.
  void StartOver(size_t items) {
    if (items == 0) return;  // all are free
    places_.resize(std::min(places_.size(), std::bit_ceil(2 * (items + 1))));
    std::fill(places_.begin(), places_.end(), 0);
  }
  void Grow() {
    const size_t size = std::max<size_t>(64, places_.size() * 2);
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

// From 64-bit keys, none of which is UINT64_MAX, to indexes.
class IndexMap {
 public:
  void Clear() {
    if (size_ == 0) return;
    entries_.resize(std::min(entries_.size(), std::bit_ceil(2 * (size_ + 1))));
    std::fill(entries_.begin(), entries_.end(), Entry{});
    size_ = 0;
  }
  // The value of `key`, and whether it was there; a new one is `value`.
  std::pair<uint32_t, bool> FindOrAdd(uint64_t key, uint32_t value) {
    if (entries_.size() * 3 < 4 * (size_ + 1)) Grow();
    Entry& entry = PlaceOf(key);
    if (entry.key == key) return {entry.value, true};
    entry = {key, value};
    ++size_;
    return {value, false};
  }
  // nullptr when the key is not there. Valid until the next change.
  const uint32_t* Find(uint64_t key) const {
    if (size_ == 0) return nullptr;
    const Entry& entry = const_cast<IndexMap*>(this)->PlaceOf(key);
    return entry.key == key ? &entry.value : nullptr;
  }

 private:
  struct Entry {
    uint64_t key = UINT64_MAX;
    uint32_t value = 0;
  };
  Entry& PlaceOf(uint64_t key) {
    const size_t mask = entries_.size() - 1;
    size_t place = static_cast<size_t>(MixHash(0, key)) & mask;
    while (entries_[place].key != key && entries_[place].key != UINT64_MAX) {
      place = (place + 1) & mask;
    }
    return entries_[place];
  }
  void Grow() {
    std::vector<Entry> old(std::max<size_t>(64, entries_.size() * 2));
    old.swap(entries_);
    for (const Entry& entry : old) {
      if (entry.key != UINT64_MAX) PlaceOf(entry.key) = entry;
    }
  }
  std::vector<Entry> entries_;
  size_t size_ = 0;
};

}  // namespace firewatch::symbolizer::dwarf
