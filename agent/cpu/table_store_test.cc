// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/table_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>

#include "agent/core/losses.h"
#include "agent/cpu/fake_table_memory.h"

namespace firewatch::agent {
namespace {

// 12 pages of 512 rows and 300 rules: about 24 KiB, so that a slab holds ten tables.
constexpr uint32_t kPages = 12;
constexpr uint32_t kTables = 256;

class TableStoreTest : public testing::Test {
 protected:
  // Also after each wait and at the end of a test: what the kernel side reads is what the tables
  // say.
  uint32_t Load(uint32_t seed, uint32_t pages = kPages) {
    const TableForTest& source = sources_.emplace_back(pages, seed);
    const auto table = source.Map();
    EXPECT_NE(table, nullptr);
    const uint32_t index = store_.Attach(store_.Reserve().value(), table);
    tables_[index] = table;
    return index;
  }

  // One slab of tables, by seeds from 1 on; the next one does not fit.
  std::vector<uint32_t> FillOneSlab() {
    budget_ = FW_SLAB_BYTES;
    std::vector<uint32_t> indexes;
    do {
      indexes.push_back(Load(static_cast<uint32_t>(indexes.size() + 1)));
    } while (Loaded(indexes.back()));
    tables_.erase(indexes.back());
    store_.Release(indexes.back());
    indexes.pop_back();
    EXPECT_GE(indexes.size(), 8u);
    return indexes;
  }

  void Use(uint32_t index, uint32_t samples, uint32_t now_s = 1) {
    memory_.tables()[index].uses += samples;
    memory_.tables()[index].last_used_s = now_s;
  }

  bool Loaded(uint32_t index) { return memory_.tables()[index].state == FW_TABLE_READY; }

  // Every table that is ready answers as its source does.
  void CheckAll() {
    for (const auto& [index, table] : tables_) {
      if (!Loaded(index)) continue;
      for (int i = 0; i < 200; ++i) {
        const uint64_t offset =
            random_() % (uint64_t{table->table.directory().size() + 2} << FW_PAGE_SHIFT);
        const auto found = memory_.Find(index, offset);
        ASSERT_TRUE(found.has_value());
        ASSERT_TRUE(SameRule(*found, table->table.Find(offset))) << index << " at " << offset;
      }
    }
  }

  uint64_t budget_ = uint64_t{64} << 20;
  uint64_t keep_ = 0;
  FakeTableMemory memory_{kTables};
  base::MetricsRegistry metrics_;
  // A test that says nothing else lets tables keep what they may grow to.
  TableStore store_{
      memory_,
      [this] { return MemoryBudget::Room{.grow_to = budget_, .keep = std::max(budget_, keep_)}; },
      metrics_};
  std::deque<TableForTest> sources_;
  std::map<uint32_t, TableStore::Table> tables_;
  std::mt19937 random_{3};
};

TEST_F(TableStoreTest, WhatTheKernelSideReadsIsTheTable) {
  for (uint32_t seed = 1; seed <= 30; ++seed) Load(seed, 1 + seed * 3);
  EXPECT_GT(memory_.slab_count(), 2u);
  CheckAll();
  for (const auto& [index, table] : tables_) EXPECT_TRUE(Loaded(index));
}

TEST_F(TableStoreTest, ATableLargerThanASlabIsSpreadOverSlabs) {
  const uint32_t index = Load(1, 400);
  EXPECT_TRUE(Loaded(index));
  EXPECT_GT(memory_.slab_count(), 1u);
  CheckAll();
}

TEST_F(TableStoreTest, FilesOfOneBuildShareATable) {
  const uint32_t index = Load(1);
  const uint64_t used = store_.used_bytes();
  const uint32_t reserved = store_.Reserve().value();
  EXPECT_NE(reserved, index);
  EXPECT_EQ(store_.Attach(reserved, tables_[index]), index);
  EXPECT_EQ(store_.used_bytes(), used);
  store_.Release(index);
  EXPECT_TRUE(Loaded(index));
  store_.Release(index);
  EXPECT_FALSE(Loaded(index));
}

TEST_F(TableStoreTest, MemoryIsReusedOnlyAfterProgramsHaveEnded) {
  const std::vector<uint32_t> first = FillOneSlab();
  ASSERT_EQ(memory_.waits, 0u);
  // A program that found table 0 a moment ago still reads its directory.
  const fw_table seen = memory_.tables()[first[0]];
  const std::vector<std::byte> before(memory_.Slab(0), memory_.Slab(0) + FW_SLAB_BYTES);
  const size_t from = size_t{UnitOf(seen.rules)} * 8;
  bool waited = false;
  memory_.on_wait = [&] {
    waited = true;
    EXPECT_FALSE(Loaded(first[0]));
    EXPECT_EQ(
        std::memcmp(memory_.Slab(0) + from, before.data() + from, size_t{seen.rule_slots} * 8), 0);
  };
  const uint32_t wanted = Load(50);
  Use(wanted, 5);
  EXPECT_FALSE(Loaded(wanted));
  store_.LoadWaiting(/*now_s=*/10);
  EXPECT_TRUE(waited);
  EXPECT_TRUE(Loaded(wanted));
  CheckAll();
}

TEST_F(TableStoreTest, PutsOutTheLeastUsedFirst) {
  const std::vector<uint32_t> indexes = FillOneSlab();
  for (const uint32_t index : indexes) Use(index, index == indexes[3] ? 1 : 100);
  const uint32_t wanted = Load(50);
  Use(wanted, 40);
  store_.LoadWaiting(10);
  EXPECT_TRUE(Loaded(wanted));
  for (const uint32_t index : indexes) EXPECT_EQ(Loaded(index), index != indexes[3]) << index;
  EXPECT_EQ(store_.evictions(), 1u);
  EXPECT_EQ(LossCounter(metrics_, FW_LOSS_TABLE_EVICTED).value(), 1u);
}

TEST_F(TableStoreTest, WhatIsUsedLessMustWaitAndIsCounted) {
  for (const uint32_t index : FillOneSlab()) Use(index, 100);
  const uint32_t wanted = Load(50);
  Use(wanted, 1);
  store_.LoadWaiting(10);
  EXPECT_FALSE(Loaded(wanted));
  EXPECT_EQ(store_.evictions(), 0u);
  EXPECT_EQ(LossCounter(metrics_, FW_LOSS_TABLE_NO_ROOM).value(), 1u);
}

TEST_F(TableStoreTest, ATableThatIsWantedBackComesBackWithTheWindow) {
  for (const uint32_t index : FillOneSlab()) Use(index, 100);
  const uint32_t wanted = Load(50);
  store_.LoadWaiting(10);
  EXPECT_FALSE(Loaded(wanted));
  store_.EndWindow(11);
  // The others fall silent; their samples count half in each window.
  for (uint32_t window = 0; window < 10; ++window) {
    Use(wanted, 30, 20 + window);
    store_.EndWindow(20 + window);
  }
  EXPECT_TRUE(Loaded(wanted));
  CheckAll();
}

TEST_F(TableStoreTest, ObeysABudgetThatShrinks) {
  for (uint32_t seed = 1; seed <= 100; ++seed) Use(Load(seed), seed);
  const size_t before = memory_.slab_count();
  ASSERT_GE(before, 8u);
  for (size_t slabs = before - 1; slabs >= 1; --slabs) {
    budget_ = slabs * FW_SLAB_BYTES + 1000;
    store_.EndWindow(10);
    ASSERT_LE(memory_.slab_count(), slabs);
    ASSERT_EQ(store_.slab_bytes(), memory_.slab_count() * FW_SLAB_BYTES);
    CheckAll();
  }
  // The most used are those that stayed.
  size_t loaded = 0;
  for (uint32_t index = 0; index < 100; ++index) loaded += Loaded(index) ? 1 : 0;
  EXPECT_GE(loaded, 8u);
  EXPECT_TRUE(Loaded(99));
  EXPECT_FALSE(Loaded(0));
  // Room again: what is used comes back.
  budget_ = uint64_t{64} << 20;
  for (uint32_t index = 0; index < 100; ++index) Use(index, 10);
  store_.EndWindow(20);
  for (uint32_t index = 0; index < 100; ++index) EXPECT_TRUE(Loaded(index));
  CheckAll();
}

TEST_F(TableStoreTest, GivesWayToAHeapThatGrowsWithinAWindow) {
  for (uint32_t seed = 1; seed <= 60; ++seed) Use(Load(seed), seed);
  const size_t before = memory_.slab_count();
  ASSERT_GE(before, 5u);
  store_.ObeyBudget();
  EXPECT_EQ(memory_.slab_count(), before) << "there is room";
  budget_ = 3 * FW_SLAB_BYTES;
  keep_ = before * FW_SLAB_BYTES;
  store_.ObeyBudget();
  EXPECT_EQ(memory_.slab_count(), before) << "beyond what they may grow to, but not too many";
  keep_ = 0;
  store_.ObeyBudget();
  EXPECT_LE(memory_.slab_count(), 3u);
  EXPECT_TRUE(Loaded(59));
  EXPECT_FALSE(Loaded(0));
  CheckAll();
}

TEST_F(TableStoreTest, WithoutAnyRoomOneSlabStays) {
  for (uint32_t seed = 1; seed <= 60; ++seed) Use(Load(seed), seed);
  budget_ = 0;
  store_.ObeyBudget();
  EXPECT_EQ(memory_.slab_count(), 1u);
  CheckAll();
}

TEST_F(TableStoreTest, NeverPassesTheBudgetWhileLoading) {
  budget_ = 3 * FW_SLAB_BYTES;
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    Use(Load(seed, 1 + seed % 40), 1 + seed % 3);
    store_.LoadWaiting(seed);
    if (seed % 20 == 0) store_.EndWindow(seed);
    ASSERT_LE(memory_.slab_count(), 3u);
  }
  CheckAll();
}

TEST_F(TableStoreTest, HolesAreClosedBySlabsThatGo) {
  std::vector<uint32_t> indexes;
  for (uint32_t seed = 1; seed <= 100; ++seed) indexes.push_back(Load(seed));
  const size_t before = memory_.slab_count();
  // Three of four go, spread over all slabs.
  for (uint32_t i = 0; i < indexes.size(); ++i) {
    if (i % 4 == 0) continue;
    store_.Release(indexes[i]);
    tables_.erase(indexes[i]);
  }
  for (uint64_t window = 0; window < before; ++window) store_.EndWindow(10 + window);
  EXPECT_LE(memory_.slab_count(), before / 4 + 2);
  EXPECT_EQ(store_.loaded_count(), 25u);
  CheckAll();
}

TEST_F(TableStoreTest, IndexesAreReusedAfterAWaitAndBeginAtZero) {
  std::vector<uint32_t> indexes;
  for (uint32_t i = 0; i < kTables; ++i) {
    if (i == 0) {
      indexes.push_back(Load(1));
    } else {
      indexes.push_back(store_.Reserve().value());
    }
  }
  EXPECT_FALSE(store_.Reserve().has_value());
  Use(indexes[5], 7);
  const size_t waits = memory_.waits;
  store_.Release(indexes[5]);
  EXPECT_EQ(store_.Reserve(), indexes[5]);
  EXPECT_EQ(memory_.waits, waits + 1);
  EXPECT_EQ(memory_.tables()[indexes[5]].uses, 0u);
}

TEST_F(TableStoreTest, RandomUseKeepsEveryReadyTableWhole) {
  budget_ = 4 * FW_SLAB_BYTES;
  std::vector<uint32_t> indexes;
  memory_.on_wait = [this] { CheckAll(); };
  for (uint32_t step = 1; step <= 400; ++step) {
    const uint32_t what = static_cast<uint32_t>(random_() % 10);
    if (what < 5 && indexes.size() < 60) {
      indexes.push_back(Load(step, 1 + static_cast<uint32_t>(random_() % 30)));
    } else if (what < 6 && !indexes.empty()) {
      std::swap(indexes[random_() % indexes.size()], indexes.back());
      tables_.erase(indexes.back());
      store_.Release(indexes.back());
      indexes.pop_back();
    } else if (what < 8 && !indexes.empty()) {
      Use(indexes[random_() % indexes.size()], static_cast<uint32_t>(random_() % 50), step);
    } else if (what == 8) {
      store_.LoadWaiting(step);
    } else {
      budget_ = (1 + random_() % 6) * FW_SLAB_BYTES;
      store_.EndWindow(step);
      ASSERT_LE(store_.slab_bytes(), budget_);
    }
  }
  CheckAll();
}

}  // namespace
}  // namespace firewatch::agent
