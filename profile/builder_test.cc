// SPDX-License-Identifier: Apache-2.0
#include "profile/builder.h"

#include <gtest/gtest.h>

#include <limits>

#include "profile/utf8.h"

namespace firewatch::profile {
namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

ProfileBuilder CpuBuilder() {
  return ProfileBuilder({{"samples", "count"}, {"cpu", "nanoseconds"}});
}

TEST(ProfileBuilderTest, RowZeroOfEveryTableIsTheEmptyOne) {
  const Profile profile = CpuBuilder().Finish();
  EXPECT_EQ(profile.strings, std::vector<std::string>{""});
  EXPECT_EQ(profile.mappings, std::vector<Mapping>{Mapping()});
  EXPECT_EQ(profile.stacks, std::vector<std::vector<LocationId>>{{}});
  EXPECT_EQ(profile.label_sets, std::vector<LabelSet>{LabelSet()});
}

TEST(ProfileBuilderTest, EqualRowsGetOneId) {
  ProfileBuilder builder = CpuBuilder();
  EXPECT_EQ(builder.AddString("main"), builder.AddString(std::string("main")));
  const FunctionId function = builder.AddFunction("main", "main", "a.c", 3);
  EXPECT_EQ(function, builder.AddFunction("main", "main", "a.c", 3));
  EXPECT_NE(function, builder.AddFunction("main", "main", "a.c", 4));
  const Mapping mapping{.file = builder.AddString("/bin/a"), .build_id = builder.AddString("ab")};
  const MappingId mapping_id = builder.AddMapping(mapping);
  EXPECT_EQ(mapping_id, builder.AddMapping(mapping));
  Location location{.mapping = mapping_id, .address = 16, .kind = LocationKind::kNative};
  location.lines.push_back({.function = function, .line = 7});
  const LocationId id = builder.AddLocation(location);
  EXPECT_EQ(id, builder.AddLocation(location));
  location.lines[0].column = 2;
  EXPECT_NE(id, builder.AddLocation(location));
  const LocationId stack[] = {id, id};
  EXPECT_EQ(builder.AddStack(stack), builder.AddStack(stack));
  EXPECT_EQ(builder.AddStack({}), StackId());
  EXPECT_EQ(builder.AddLabelSet(LabelSet(Pairs{{"thread", "x"}})),
            builder.AddLabelSet(LabelSet(Pairs{{"thread", "x"}})));
  EXPECT_EQ(builder.AddLabelSet(LabelSet()), LabelSetId());
}

TEST(ProfileBuilderTest, SamplesOfOneStackAndLabelSetAreAddedUp) {
  ProfileBuilder builder = CpuBuilder();
  const LocationId leaf = builder.AddLocation({.address = 1});
  const StackId stack = builder.AddStack(std::span(&leaf, 1));
  const LabelSetId thread = builder.AddLabelSet(LabelSet(Pairs{{"thread", "x"}}));
  const int64_t first[] = {1, 10};
  const int64_t second[] = {2, 20};
  builder.AddSample(stack, thread, first);
  builder.AddSample(stack, LabelSetId(), first);
  builder.AddSample(stack, thread, second);
  const Profile profile = builder.Finish();
  ASSERT_EQ(profile.samples.size(), 2u);
  EXPECT_EQ(profile.samples[0].values, (std::vector<int64_t>{3, 30}));
  EXPECT_EQ(profile.samples[1].values, (std::vector<int64_t>{1, 10}));
}

TEST(ProfileBuilderTest, SumsStopAtTheEndsOfInt64) {
  ProfileBuilder builder = CpuBuilder();
  const int64_t ends[] = {std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()};
  const int64_t step[] = {1, -1};
  builder.AddSample(StackId(), LabelSetId(), ends);
  builder.AddSample(StackId(), LabelSetId(), step);
  const Profile profile = builder.Finish();
  EXPECT_EQ(profile.samples[0].values, std::vector<int64_t>(std::begin(ends), std::end(ends)));
}

TEST(ProfileBuilderTest, TextIsMadeUtf8) {
  ProfileBuilder builder = CpuBuilder();
  const StringId id = builder.AddString(
      "a\xff"
      "b");
  EXPECT_EQ(builder.profile().String(id),
            "a\xEF\xBF\xBD"
            "b");
}

TEST(ProfileBuilderTest, TablesOfManyRowsStayDistinct) {
  ProfileBuilder builder = CpuBuilder();
  for (uint64_t i = 0; i < 5000; ++i) {
    const LocationId id = builder.AddLocation({.address = i * 4096});
    ASSERT_EQ(id.value(), i);
    ASSERT_EQ(builder.AddStack(std::span(&id, 1)).value(), i + 1);
  }
  for (uint64_t i = 0; i < 5000; ++i) {
    ASSERT_EQ(builder.AddLocation({.address = i * 4096}).value(), i);
  }
}

TEST(Utf8Test, RefusesOverlongFormsSurrogatesAndTails) {
  EXPECT_TRUE(IsValidUtf8("plain ascii, longer than one word"));
  EXPECT_TRUE(IsValidUtf8("gr\u00fcn \u20ac \U0001F525"));
  for (const std::string_view bad :
       {"\x80", "\xC0\xAF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x80\x80\x80", "\xF4\x90\x80\x80",
        "\xF5\x80\x80\x80", "abcdefgh\xE2\x82"}) {
    EXPECT_FALSE(IsValidUtf8(bad)) << testing::PrintToString(bad);
    EXPECT_TRUE(IsValidUtf8(ToValidUtf8(bad)));
  }
}

TEST(Utf8Test, PrefixNeverCutsACharacter) {
  EXPECT_EQ(Utf8Prefix("ab", 5), "ab");
  EXPECT_EQ(Utf8Prefix("a\u20acb", 3), "a");
  EXPECT_EQ(Utf8Prefix("a\u20acb", 4), "a\u20ac");
}

}  // namespace
}  // namespace firewatch::profile
