// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/text.h"

#include <gtest/gtest.h>

namespace firewatch::symbolizer {
namespace {

TEST(TextTest, WellFormedTextIsUnchanged) {
  for (const char* text : {"", "main", "größe", "名前", "a\xf0\x9f\x94\xa5z"}) {
    EXPECT_TRUE(IsPrintableUtf8(text)) << text;
    EXPECT_EQ(MakePrintable(text), text);
  }
}

TEST(TextTest, OffendingBytesBecomeQuestionMarks) {
  EXPECT_EQ(MakePrintable("a\x01z"), "a?z");
  EXPECT_EQ(MakePrintable("\x7f"), "?");
  EXPECT_EQ(MakePrintable("\xff\xfe"), "??");
  EXPECT_EQ(MakePrintable("\xc3"), "?") << "cut";
  EXPECT_EQ(MakePrintable("\xc0\x80"), "??") << "overlong NUL";
  EXPECT_EQ(MakePrintable("\xe0\x80\xaf"), "???") << "overlong slash";
  EXPECT_EQ(MakePrintable("\xed\xa0\x80"), "???") << "surrogate";
  EXPECT_EQ(MakePrintable("\xf4\x90\x80\x80"), "????") << "past U+10FFFF";
  EXPECT_EQ(MakePrintable("\xc2\x9b"), "??") << "C1 control, as ESC [ on a terminal";
}

}  // namespace
}  // namespace firewatch::symbolizer
