// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/dwarf/interned.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace firewatch::symbolizer::dwarf {
namespace {

// Keys close together and far apart, the same map again after Clear, against a std::map.
TEST(IndexMapTest, FindsNearAndFarKeys) {
  std::mt19937_64 random(3);
  IndexMap map;
  for (const uint64_t first : {uint64_t{0}, uint64_t{1} << 40, UINT64_MAX}) {
    map.Clear();
    map.Expect(first);  // of an empty map, too
    EXPECT_EQ(map.Find(first), nullptr);
    std::map<uint64_t, uint32_t> expected = {{first, 7}};
    EXPECT_EQ(map.FindOrAdd(first, 7), std::pair(uint32_t{7}, false));
    for (uint32_t i = 0; i < 20000; ++i) {
      uint64_t key = first + random() % 30000;  // wraps: so may keys
      if (i % 3 == 0) key = first - random() % 30000;
      if (i % 7 == 0) key = random();
      if (i % 11 == 0) key = first + (uint64_t{1} << 31) - 8 + random() % 16;
      if (i % 13 == 0) key = first - (uint64_t{1} << 31) - 8 + random() % 16;
      const auto [truth, added] = expected.try_emplace(key, i);
      ASSERT_EQ(map.FindOrAdd(key, i), std::pair(truth->second, !added)) << key;
    }
    for (const auto& [key, value] : expected) {
      ASSERT_NE(map.Find(key), nullptr) << key;
      EXPECT_EQ(*map.Find(key), value);
    }
    for (int i = 0; i < 10000; ++i) {
      const uint64_t key = i % 2 == 0 ? random() : first + random() % 60000;
      map.Expect(key);
      if (!expected.contains(key)) EXPECT_EQ(map.Find(key), nullptr) << key;
    }
  }
}

struct Number {
  uint64_t value;
  bool operator==(const Number&) const = default;
  uint64_t Hash() const { return MixHash(0, value); }
};

template <typename Table>
void NumbersInOrderOfFirstUse(Table& table) {
  std::mt19937 random(5);
  std::vector<Number> taken;
  for (const size_t count : {size_t{5000}, size_t{3}, size_t{0}, size_t{700}}) {
    std::map<uint64_t, uint32_t> expected;
    for (size_t i = 0; i < 3 * count; ++i) {
      const uint64_t value = random() % count;
      const auto known = expected.try_emplace(value, expected.size()).first;
      ASSERT_EQ(table.Add({value}), known->second);
      ASSERT_EQ(table.Find({value}), known->second);
      ASSERT_EQ(table.Find({count + i}), std::nullopt);
    }
    ASSERT_EQ(table.size(), expected.size());
    table.TakeInto(&taken);
    ASSERT_EQ(taken.size(), expected.size());
    for (const auto& [value, index] : expected) EXPECT_EQ(taken[index].value, value);
    EXPECT_EQ(table.size(), 0U);
    EXPECT_EQ(table.Find({0}), std::nullopt);
  }
}

TEST(InternedTest, NumbersInOrderOfFirstUse) {
  Interned<Number> half;
  NumbersInOrderOfFirstUse(half);
  Interned<Number, 75> more;
  more.ReserveRoom();
  NumbersInOrderOfFirstUse(more);
  more.Add({9});
  more.Close();
  EXPECT_EQ(more[0].value, 9U);
  EXPECT_EQ(more.Find({9}), std::nullopt);
  for (uint64_t value = 0; value < 100; ++value) more.Add({value});  // makes it all again
  EXPECT_EQ(more.Find({9}), 0U);
  EXPECT_EQ(more.size(), 100U);
}

// Numbers that differ where a table of this size does not look, if their hash were known: placed by
// the low bits of what multiplication by a constant makes of them, they would lie in one row.
TEST(InternedTest, ChosenRecordsAreNotInOneRow) {
  constexpr uint64_t kKnownMultiplier = 0x9e3779b97f4a7c15;
  uint64_t inverse = kKnownMultiplier;  // modulo 2^64, by Newton's steps
  for (int i = 0; i < 6; ++i) inverse *= 2 - kKnownMultiplier * inverse;
  ASSERT_EQ(inverse * kKnownMultiplier, 1U);
  constexpr uint64_t kCount = 20'000;
  const auto chosen = [inverse](uint64_t i) {
    const uint64_t high = i << 44;  // a product whose two halves cancel in the low bits
    return Number{.value = (high | high >> 32) * inverse};
  };
  Interned<Number, 75> table;
  for (uint64_t i = 0; i < kCount; ++i) ASSERT_EQ(table.Add(chosen(i)), i);
  size_t steps = 0;
  for (uint64_t i = 0; i < kCount; ++i) steps += table.StepsTo(chosen(i));
  EXPECT_LT(steps, 20 * kCount);
}

}  // namespace
}  // namespace firewatch::symbolizer::dwarf
