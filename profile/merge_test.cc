// SPDX-License-Identifier: Apache-2.0
#include "profile/merge.h"

#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <random>

#include "profile/builder.h"
#include "profile/test_profiles.h"

namespace firewatch::profile {
namespace {

const std::vector<ValueType> kCountOnly = {{"samples", "count"}};

using Values = std::vector<int64_t>;

// One sample, one location.
struct OneFrame {
  std::string file = "/bin/app";
  std::string build_id = "abcd";
  uint64_t address = 0x1000;
  LocationKind kind = LocationKind::kNative;
  std::vector<std::string> names = {};  // innermost first
  int64_t line = 0;
  int64_t value = 1;
};

Profile Make(const OneFrame& frame) {
  ProfileBuilder builder(kCountOnly);
  Location location{.mapping = builder.AddMapping({.file = builder.AddString(frame.file),
                                                   .build_id = builder.AddString(frame.build_id),
                                                   .memory_limit = 0x2000}),
                    .address = frame.address,
                    .kind = frame.kind};
  for (const std::string& name : frame.names) {
    location.lines.push_back({.function = builder.AddFunction(name, name, ""), .line = frame.line});
  }
  const LocationId id = builder.AddLocation(location);
  builder.AddSample(builder.AddStack(std::span(&id, 1)), LabelSetId(), std::span(&frame.value, 1));
  return builder.Finish();
}

Profile Merge(const std::vector<Profile>& profiles) {
  ProfileMerger merger;
  for (const Profile& profile : profiles) EXPECT_TRUE(merger.Add(profile).ok());
  return merger.Finish();
}

std::vector<std::string> NamesOfOnlyLocation(const Profile& profile) {
  EXPECT_EQ(profile.locations.size(), 1u);
  std::vector<std::string> names;
  for (const Line& line : profile.locations.at(0).lines) {
    names.emplace_back(profile.String(profile.functions[line.function.index()].name));
  }
  return names;
}

TEST(ProfileMergerTest, BareAndNamedLocationOfOneBuildIdAreOneWithTheName) {
  for (const bool named_first : {false, true}) {
    std::vector<Profile> profiles = {Make({.names = {}}), Make({.names = {"main"}})};
    if (named_first) std::swap(profiles[0], profiles[1]);
    const Profile merged = Merge(profiles);
    EXPECT_EQ(NamesOfOnlyLocation(merged), std::vector<std::string>{"main"});
    ASSERT_EQ(merged.samples.size(), 1u);
    EXPECT_EQ(merged.samples[0].values, Values{2});
  }
}

TEST(ProfileMergerTest, MoreInlinedLinesBeatFewerAndSourceLinesBeatNone) {
  const Profile merged = Merge({Make({.names = {"outer"}}), Make({.names = {"inner", "outer"}}),
                                Make({.names = {"outer"}, .line = 3})});
  EXPECT_EQ(NamesOfOnlyLocation(merged), (std::vector<std::string>{"inner", "outer"}));
  const Profile lines = Merge({Make({.names = {"f"}}), Make({.names = {"f"}, .line = 3})});
  EXPECT_EQ(lines.locations.at(0).lines.at(0).line, 3);
}

TEST(ProfileMergerTest, PathsWithoutBuildIdDoNotLendNames) {
  const Profile merged = Merge({Make({.build_id = "", .names = {"of_version_1"}}),
                                Make({.build_id = "", .names = {"of_version_2"}})});
  EXPECT_EQ(merged.locations.size(), 2u);
}

TEST(ProfileMergerTest, BuildIdsKeepBinariesOfOnePathApart) {
  EXPECT_EQ(Merge({Make({.build_id = "aa"}), Make({.build_id = "bb"})}).locations.size(), 2u);
}

TEST(ProfileMergerTest, KernelLocationsMeetByNameBecauseAddressesMoveAtBoot) {
  OneFrame frame{.file = "[kernel]", .build_id = "", .kind = LocationKind::kKernel};
  frame.names = {"ksys_read"};
  frame.address = 0xffffffff81000010;
  OneFrame moved = frame;
  moved.address = 0xffffffff92000010;
  EXPECT_EQ(Merge({Make(frame), Make(moved)}).samples.at(0).values, Values{2});
  moved.file = "[nf_tables]";
  EXPECT_EQ(Merge({Make(frame), Make(moved)}).samples.size(), 2u);
}

TEST(ProfileMergerTest, MappingsThatDifferInTheirLimitOnlyAreOneWithTheLarger) {
  Profile larger = Make({.address = 0x20});
  larger.mappings.at(1).memory_limit = 0x7000;
  const Profile merged = Merge({Make({}), larger});
  ASSERT_EQ(merged.mappings.size(), 2u);
  EXPECT_EQ(merged.mappings[1].memory_limit, 0x7000u);
}

TEST(ProfileMergerTest, OtherSampleTypesAreRefusedAndLeaveNothing) {
  ProfileMerger merger;
  ASSERT_TRUE(merger.Add(Make({})).ok());
  Profile other = Make({.build_id = "ee"});
  other.sample_types[0].unit = "bytes";
  EXPECT_EQ(merger.Add(other).code(), absl::StatusCode::kInvalidArgument);
  const Profile merged = merger.Finish();
  EXPECT_EQ(merged.locations.size(), 1u);
  EXPECT_EQ(merged.samples.at(0).values, Values{1});
}

TEST(ProfileMergerTest, HeadFollowsPprof) {
  Profile first = Make({});
  first.period = 10;
  first.duration_ns = 100;
  first.comments = {"a", "b"};
  Profile second = Make({});
  second.period = 20;
  second.start_unix_ns = 5000;
  second.duration_ns = 11;
  second.comments = {"b", "c"};
  second.default_sample_type = "samples";
  Profile third = Make({});
  third.start_unix_ns = 4000;
  const Profile merged = Merge({first, second, third});
  EXPECT_EQ(merged.period, 20);
  EXPECT_EQ(merged.start_unix_ns, 4000);
  EXPECT_EQ(merged.duration_ns, 111);
  EXPECT_EQ(merged.comments, (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(merged.default_sample_type, "samples");
}

TEST(ProfileMergerTest, SumsSaturate) {
  const int64_t most = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(Merge({Make({.value = most}), Make({.value = 2})}).samples.at(0).values, Values{most});
}

TEST(ProfileMergerTest, NothingAddedIsAnEmptyProfile) {
  const Profile merged = ProfileMerger().Finish();
  EXPECT_TRUE(merged.samples.empty());
  EXPECT_EQ(merged.strings.size(), 1u);
}

// The slow obvious twin: locations by their identity's definition as text, samples in a map.
std::string TwinLocation(const Profile& profile, LocationId id) {
  const Location& location = profile.locations[id.index()];
  const Mapping& mapping = profile.mappings[location.mapping.index()];
  const std::string file(profile.String(mapping.file));
  const std::string build_id(profile.String(mapping.build_id));
  const std::string address = std::to_string(location.address);
  if (location.kind == LocationKind::kNative && !build_id.empty()) {
    return "<" + build_id + "+" + address + ">";
  }
  std::string names;
  for (const Line& line : location.lines) {
    const Function& function = profile.functions[line.function.index()];
    names += "|" + std::string(profile.String(function.system_name));
    if (location.kind != LocationKind::kKernel) {
      names += "," + std::string(profile.String(function.file)) + "," + std::to_string(line.line);
    }
  }
  const bool by_path = location.kind == LocationKind::kNative;
  return "<" + file + (names.empty() ? (by_path ? "@" : "!") + address : names) + ">";
}

std::map<std::string, Values> TwinSamples(const std::vector<Profile>& profiles) {
  std::map<std::string, Values> samples;
  for (const Profile& profile : profiles) {
    for (const Sample& sample : profile.samples) {
      std::string key;
      for (const LocationId id : profile.stacks[sample.stack.index()]) {
        key += TwinLocation(profile, id);
      }
      key += profile.label_sets[sample.labels.index()].ToString();
      Values& sums = samples[key];
      sums.resize(sample.values.size());
      for (size_t i = 0; i < sums.size(); ++i) sums[i] += sample.values[i];
    }
  }
  return samples;
}

TEST(ProfileMergerTest, AgreesWithAMapOfStrings) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<Profile> profiles;
    for (int i = 0; i < 5; ++i) profiles.push_back(RandomTestProfile(random));
    const Profile merged = Merge(profiles);
    ASSERT_EQ(TwinSamples({merged}), TwinSamples(profiles)) << "round " << round;
    ASSERT_EQ(merged.samples.size(), TwinSamples(profiles).size()) << "a stack was split";
  }
}

TEST(ProfileMergerTest, MergingInPartsGivesTheSameTotals) {
  std::mt19937 random(8);
  for (int round = 0; round < 50; ++round) {
    std::vector<Profile> profiles;
    for (int i = 0; i < 6; ++i) profiles.push_back(RandomTestProfile(random));
    const Profile left = Merge({profiles[0], profiles[1], profiles[2]});
    const Profile right = Merge({profiles[3], profiles[4], profiles[5]});
    ASSERT_EQ(TwinSamples({Merge({left, right})}), TwinSamples({Merge(profiles)}));
  }
}

}  // namespace
}  // namespace firewatch::profile
