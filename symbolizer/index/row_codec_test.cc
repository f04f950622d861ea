// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/row_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <vector>

namespace firewatch::symbolizer {
namespace {

using Row = dwarf::UnitLines::Row;

testing::Matcher<Row> IsRow(uint64_t address, uint32_t chain) {
  return testing::AllOf(testing::Field(&Row::address, address), testing::Field(&Row::chain, chain));
}

std::vector<Row> ThereAndBack(const std::vector<Row>& rows, EncodedRows* encoded) {
  EncodeRows(rows, encoded);
  std::vector<Row> back = {{1, 1}};
  DecodeRows(*encoded, &back);
  return back;
}

TEST(RowCodecTest, ShortGapsStayInARunAndLongOnesEndIt) {
  EncodedRows encoded;
  const std::vector<Row> rows = {{0x1000, 7}, {0x1010, 0}, {0x1110, 3},
                                 {0x1120, 0}, {0x1221, 4}, {0x1230, 0}};
  const std::vector<Row> back = ThereAndBack(rows, &encoded);
  EXPECT_THAT(back, testing::ElementsAre(IsRow(0x1000, 7), IsRow(0x1010, 0), IsRow(0x1110, 3),
                                         IsRow(0x1120, 0), IsRow(0x1221, 4), IsRow(0x1230, 0)));
  ASSERT_EQ(encoded.runs.size(), 2u);
  EXPECT_EQ(encoded.runs[0].start, 0x1000u);
  EXPECT_EQ(encoded.runs[0].end, 0x1120u);
  EXPECT_EQ(encoded.runs[0].offset, 0u);
  EXPECT_EQ(encoded.runs[1].start, 0x1221u);
  EXPECT_EQ(encoded.runs[1].end, 0x1230u);
}

TEST(RowCodecTest, NothingIsNoRun) {
  EncodedRows encoded;
  EXPECT_THAT(ThereAndBack({}, &encoded), testing::IsEmpty());
  EXPECT_THAT(encoded.runs, testing::IsEmpty());
  EXPECT_EQ(encoded.bytes.size(), 0u);
}

TEST(RowCodecTest, TheLargestNumbersComeBack) {
  EncodedRows encoded;
  const std::vector<Row> rows = {
      {0, UINT32_MAX}, {1, 1}, {2, UINT32_MAX}, {UINT64_MAX - 1, 1}, {UINT64_MAX, 0}};
  EXPECT_THAT(ThereAndBack(rows, &encoded),
              testing::ElementsAre(IsRow(0, UINT32_MAX), IsRow(1, 1), IsRow(2, UINT32_MAX),
                                   IsRow(UINT64_MAX - 1, 1), IsRow(UINT64_MAX, 0)));
}

TEST(RowCodecTest, RandomRowsComeBack) {
  std::mt19937_64 random(20261128);
  EncodedRows encoded;
  for (int round = 0; round < 200; ++round) {
    std::vector<Row> rows;
    uint64_t address = random() >> (random() % 64);
    uint32_t before = 0;
    for (size_t i = random() % 50; i > 0; --i) {
      uint32_t chain = random() % 4 == 0 ? 0 : static_cast<uint32_t>(random() >> (random() % 64));
      if (chain == before) chain = before == 0 ? 1 : 0;
      rows.push_back({address, chain});
      before = chain;
      address += 1 + (random() % 2000 >> (random() % 11));
    }
    if (before != 0) rows.push_back({address, 0});
    const std::vector<Row> back = ThereAndBack(rows, &encoded);
    ASSERT_EQ(back.size(), rows.size());
    for (size_t i = 0; i < rows.size(); ++i)
      EXPECT_THAT(back[i], IsRow(rows[i].address, rows[i].chain));
  }
}

}  // namespace
}  // namespace firewatch::symbolizer
