// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/name_table.h"

#include <gtest/gtest.h>

#include <string>

namespace firewatch::symbolizer {
namespace {

TEST(NameTableBuilderTest, IdsAreDenseAndInOrderOfFirstIntern) {
  NameTableBuilder names;
  EXPECT_EQ(names.Intern(""), 0U);
  EXPECT_EQ(names.Intern("b"), 1U);
  EXPECT_EQ(names.Intern("a"), 2U);
  EXPECT_EQ(names.Intern("b"), 1U);
  std::string gone = "copied";
  EXPECT_EQ(names.InternCopy(gone), 3U);
  gone.assign(gone.size(), '!');
  EXPECT_EQ(names.Intern("copied"), 3U);
  EXPECT_EQ(names.NameOf(3), "copied");
  EXPECT_EQ(names.size(), 4U);
}

TEST(NameTableBuilderTest, HugeNamesAreCut) {
  NameTableBuilder names;
  const std::string huge(kMaxNameBytes + 100, 'x');
  const uint32_t id = names.Intern(huge);
  EXPECT_EQ(names.NameOf(id).size(), kMaxNameBytes);
  EXPECT_EQ(names.InternCopy(huge), id);
}

}  // namespace
}  // namespace firewatch::symbolizer
