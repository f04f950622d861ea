// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/dwarf/string_list.h"

#include <gtest/gtest.h>

namespace firewatch::symbolizer::dwarf {
namespace {

TEST(StringListTest, KeepsEachStringAlsoEmptyOnes) {
  StringList list = {"", "/a.c"};
  list.Add("");
  list.Add("/b.h");
  ASSERT_EQ(list.size(), 4u);
  EXPECT_EQ(list[0], "");
  EXPECT_EQ(list[1], "/a.c");
  EXPECT_EQ(list[2], "");
  EXPECT_EQ(list[3], "/b.h");
  const StringList copy = list;
  list.Clear();
  EXPECT_EQ(list.size(), 0u);
  list.Add("other");
  EXPECT_EQ(list[0], "other");
  EXPECT_EQ(copy[1], "/a.c");
}

}  // namespace
}  // namespace firewatch::symbolizer::dwarf
