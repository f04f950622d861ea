// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/leb_bytes.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "symbolizer/byte_cursor.h"

namespace firewatch::symbolizer {
namespace {

std::vector<uint64_t> NumbersIn(const LebBytes& bytes) {
  std::vector<uint64_t> numbers;
  for (ByteCursor cursor(std::as_bytes(bytes.bytes())); !cursor.at_end();) {
    numbers.push_back(cursor.Uleb());
    EXPECT_TRUE(cursor.ok());
  }
  return numbers;
}

TEST(LebBytesTest, NumbersOfEveryLengthComeBackAlsoAcrossItsRoom) {
  std::vector<uint64_t> numbers;
  for (int round = 0; round < 100; ++round) {
    for (unsigned bits = 0; bits <= 64; ++bits) {
      numbers.push_back(bits == 0 ? 0 : UINT64_MAX >> (64 - bits));
    }
  }
  LebBytes bytes;
  for (const uint64_t number : numbers) bytes.Put(number);
  EXPECT_EQ(NumbersIn(bytes), numbers);
}

TEST(LebBytesTest, BeginsAgainWhereItIsCutOff) {
  LebBytes bytes;
  bytes.Put(1);
  const size_t size = bytes.size();
  bytes.Put(300);
  bytes.Truncate(size);
  bytes.Put(2);
  EXPECT_EQ(NumbersIn(bytes), (std::vector<uint64_t>{1, 2}));
  bytes.Clear();
  EXPECT_EQ(bytes.size(), 0u);
  bytes.Put(3);
  EXPECT_EQ(NumbersIn(bytes), std::vector<uint64_t>{3});
}

TEST(LebBytesTest, ACopyGoesOnByItself) {
  LebBytes bytes;
  bytes.Put(1);
  LebBytes copy;
  for (int i = 0; i < 5'000; ++i) copy.Put(UINT64_MAX);
  copy = bytes;
  copy.Put(2);
  bytes.Put(3);
  EXPECT_EQ(NumbersIn(copy), (std::vector<uint64_t>{1, 2}));
  EXPECT_EQ(NumbersIn(bytes), (std::vector<uint64_t>{1, 3}));
  const LebBytes moved = std::move(bytes);
  EXPECT_EQ(NumbersIn(moved), (std::vector<uint64_t>{1, 3}));
  bytes = LebBytes();
  bytes.Put(4);
  EXPECT_EQ(NumbersIn(bytes), std::vector<uint64_t>{4});
}

}  // namespace
}  // namespace firewatch::symbolizer
