// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/bit_writer.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "symbolizer/index/line_table_format.h"

namespace firewatch::symbolizer {
namespace {

TEST(BitWriterTest, NumbersOfEveryWidthComeBackBehindWhatIsThere) {
  std::vector<std::byte> bytes(3, std::byte{0xaa});
  uint64_t bit = bytes.size() * 8;
  {
    BitWriter writer(&bytes);
    for (int round = 0; round < 20; ++round) {
      for (unsigned bits = 0; bits <= 32; ++bits) {
        writer.Put(static_cast<uint32_t>((uint64_t{1} << bits) - 1 - (bits > 1 ? 1 : 0)), bits);
        bit += bits;
      }
      writer.Align();
      bit = (bit + 7) / 8 * 8;
      EXPECT_EQ(bytes.size(), bit / 8);
    }
    writer.Put(1, 1);
  }
  EXPECT_EQ(bytes.size(), bit / 8 + 1) << "the end of the writer aligns";
  EXPECT_EQ(bytes[2], std::byte{0xaa});
  bytes.resize(bytes.size() + sizeof(uint64_t));  // what LoadBits may read
  uint64_t at = uint64_t{3} * 8;
  for (int round = 0; round < 20; ++round) {
    for (unsigned bits = 0; bits <= 32; ++bits) {
      EXPECT_EQ(LoadBits(bytes.data(), at, bits), (uint64_t{1} << bits) - 1 - (bits > 1 ? 1 : 0));
      at += bits;
    }
    at = (at + 7) / 8 * 8;
  }
}

}  // namespace
}  // namespace firewatch::symbolizer
