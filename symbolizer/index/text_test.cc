// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/text.h"

#include <gtest/gtest.h>

#include <string>

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

// Eight bytes are looked at together: each byte at each place among plain ones.
TEST(TextTest, EveryByteIsSeenWhereverItStands) {
  for (int byte = 0; byte < 256; ++byte) {
    for (size_t at = 0; at < 19; ++at) {
      std::string text(19, '~');
      text[at] = static_cast<char>(byte);
      EXPECT_EQ(IsPrintableUtf8(text), byte >= 0x20 && byte < 0x7f) << byte << " at " << at;
      text = std::string(19, ' ');
      text[at] = static_cast<char>(byte);
      EXPECT_EQ(IsPrintableUtf8(text), byte >= 0x20 && byte < 0x7f) << byte << " at " << at;
    }
  }
}

}  // namespace
}  // namespace firewatch::symbolizer
