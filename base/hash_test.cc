// SPDX-License-Identifier: Apache-2.0
#include "base/hash.h"

#include <gtest/gtest.h>

namespace firewatch::base {
namespace {

// Stored data depends on these values: XXH3 with seed 0, from the algorithm's own test vectors.
TEST(HashTest, IsXxh3SoThatStoredHashesStayValid) {
  EXPECT_EQ(Hash64(""), 0x2D06800538D394C2ull);
  const Hash128 empty = HashBytes128("");
  EXPECT_EQ(empty.high, 0x99AA06D3014798D8ull);
  EXPECT_EQ(empty.low, 0x6001C324468D497Full);
}

TEST(HashTest, StringMapIsAskedByView) {
  StringMap<int> map;
  map["a"] = 1;
  EXPECT_EQ(map.find(std::string_view("a"))->second, 1);
  EXPECT_EQ(map.find(std::string_view("b")), map.end());
}

}  // namespace
}  // namespace firewatch::base
