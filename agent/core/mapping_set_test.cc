// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "agent/core/process_table.h"

namespace firewatch::agent {
namespace {

ProcessMapping File(uint64_t start, uint64_t end, uint64_t offset, uint32_t file) {
  return {.start = start, .end = end, .file_offset = offset, .file = symbolizer::FileId{file}};
}

ProcessMapping Anonymous(uint64_t start, uint64_t end) {
  return {.start = start, .end = end, .anonymous = true};
}

TEST(MappingSetTest, EmptySetCoversNothing) { EXPECT_EQ(MappingSet().Find(0), nullptr); }

TEST(MappingSetTest, BordersAreHalfOpen) {
  MappingSet set;
  set.Add(File(100, 200, 0, 1));
  EXPECT_EQ(set.Find(99), nullptr);
  EXPECT_NE(set.Find(100), nullptr);
  EXPECT_NE(set.Find(199), nullptr);
  EXPECT_EQ(set.Find(200), nullptr);
}

TEST(MappingSetTest, NewcomerInTheMiddleSplitsWhatItOverlaps) {
  MappingSet set;
  set.Add(File(100, 400, 1000, 1));
  set.Add(File(200, 300, 0, 2));
  ASSERT_EQ(set.all().size(), 3u);
  EXPECT_EQ(set.Find(150)->file_offset, 1000u);
  EXPECT_EQ(set.Find(150)->end, 200u);
  EXPECT_EQ(set.Find(250)->file, symbolizer::FileId{2});
  EXPECT_EQ(set.Find(350)->start, 300u);
  EXPECT_EQ(set.Find(350)->file_offset, 1200u);
}

TEST(MappingSetTest, NewcomerRemovesWhatItCovers) {
  MappingSet set;
  set.Add(File(100, 200, 0, 1));
  set.Add(File(300, 400, 0, 2));
  set.Add(File(500, 600, 0, 3));
  set.Add(File(150, 550, 0, 4));
  ASSERT_EQ(set.all().size(), 3u);
  EXPECT_EQ(set.all()[0].end, 150u);
  EXPECT_EQ(set.all()[1].file, symbolizer::FileId{4});
  EXPECT_EQ(set.all()[2].start, 550u);
  EXPECT_EQ(set.all()[2].file_offset, 50u);
}

TEST(MappingSetTest, SameMappingTwiceIsOne) {
  MappingSet set;
  set.Add(File(100, 200, 0, 1));
  set.Add(File(100, 200, 0, 1));
  EXPECT_EQ(set.all().size(), 1u);
}

TEST(MappingSetTest, CodeThatGrowsPageByPageIsOneMapping) {
  MappingSet set;
  for (uint64_t page = 0; page < 1000; ++page) set.Add(Anonymous(page * 4096, (page + 1) * 4096));
  ASSERT_EQ(set.all().size(), 1u);
  EXPECT_EQ(set.all()[0].end, 1000u * 4096);
}

TEST(MappingSetTest, NeighboursOfDifferentFilesOrOffsetsStayApart) {
  MappingSet set;
  set.Add(File(100, 200, 0, 1));
  set.Add(File(200, 300, 0, 2));
  set.Add(File(300, 400, 500, 2));
  EXPECT_EQ(set.all().size(), 3u);
  set.Add(File(400, 500, 600, 2));  // goes on where the file left off
  EXPECT_EQ(set.all().size(), 3u);
  EXPECT_EQ(set.Find(450)->start, 300u);
}

TEST(MappingSetTest, WithLeavesTheOriginalAsItWas) {
  MappingSet set;
  set.Add(File(100, 200, 0, 1));
  const auto copy = set.With(File(150, 250, 0, 2));
  EXPECT_EQ(set.all().size(), 1u);
  EXPECT_EQ(set.Find(160)->file, symbolizer::FileId{1});
  EXPECT_EQ(copy->Find(160)->file, symbolizer::FileId{2});
}

TEST(MappingSetTest, EmptyAndBackwardMappingsChangeNothing) {
  MappingSet set;
  EXPECT_TRUE(set.Add(File(100, 100, 0, 1)));
  EXPECT_TRUE(set.Add(File(200, 100, 0, 1)));
  EXPECT_TRUE(set.all().empty());
}

TEST(MappingSetTest, EndlessMappingsAreRefusedAtTheBound) {
  MappingSet set;
  for (uint64_t i = 0; i < MappingSet::kMaxMappings; ++i) {
    ASSERT_TRUE(set.Add(File(i * 100, i * 100 + 50, 0, 1)));
  }
  EXPECT_FALSE(
      set.Add(File(MappingSet::kMaxMappings * 100, MappingSet::kMaxMappings * 100 + 50, 0, 1)));
  EXPECT_EQ(set.all().size(), MappingSet::kMaxMappings);
  EXPECT_TRUE(set.Add(File(0, 50, 0, 2)));  // in the place of another one
}

// The slow twin: one cell per address.
TEST(MappingSetTest, AgreesWithAMapOfAddresses) {
  std::minstd_rand random(7);
  for (int round = 0; round < 200; ++round) {
    MappingSet set;
    std::map<uint64_t, std::pair<uint32_t, uint64_t>> cells;  // address -> file, offset
    for (int i = 0; i < 30; ++i) {
      const uint64_t start = random() % 100;
      const uint64_t end = start + 1 + random() % 30;
      const uint32_t file = static_cast<uint32_t>(random() % 3);
      const uint64_t offset = random() % 4 * 10;
      set.Add(File(start, end, offset, file));
      for (uint64_t a = start; a < end; ++a) cells[a] = {file, offset + a - start};
    }
    for (uint64_t address = 0; address < 140; ++address) {
      const ProcessMapping* found = set.Find(address);
      const auto cell = cells.find(address);
      ASSERT_EQ(found != nullptr, cell != cells.end()) << address;
      if (found == nullptr) continue;
      EXPECT_EQ(static_cast<uint32_t>(found->file), cell->second.first);
      EXPECT_EQ(found->file_offset + address - found->start, cell->second.second);
    }
    for (size_t i = 1; i < set.all().size(); ++i) {
      EXPECT_LE(set.all()[i - 1].end, set.all()[i].start);
    }
  }
}

}  // namespace
}  // namespace firewatch::agent
