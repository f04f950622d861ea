// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/byte_cursor.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace firewatch::symbolizer {
namespace {

TEST(ByteCursorTest, ShortNumbersAreTakenInPairsOrNotAtAll) {
  const std::vector<uint8_t> bytes = {0x00, 0x7f, 0x01, 0x80, 0x01, 0x05};
  ByteCursor cursor(std::as_bytes(std::span(bytes)));
  uint64_t first = 9;
  uint64_t second = 9;
  EXPECT_TRUE(cursor.ShortUlebs(&first, &second));
  EXPECT_EQ(first, 0u);
  EXPECT_EQ(second, 0x7fu);
  EXPECT_FALSE(cursor.ShortUlebs(&first, &second));  // the second one is long
  EXPECT_EQ(cursor.Uleb(), 1u);
  EXPECT_FALSE(cursor.ShortUlebs(&first, &second));  // the first one is
  EXPECT_EQ(cursor.Uleb(), 0x80u);
  EXPECT_FALSE(cursor.ShortUlebs(&first, &second));  // there is but one
  EXPECT_EQ(cursor.Uleb(), 5u);
  EXPECT_FALSE(cursor.ShortUlebs(&first, &second));
  EXPECT_TRUE(cursor.ok());
}

}  // namespace
}  // namespace firewatch::symbolizer
