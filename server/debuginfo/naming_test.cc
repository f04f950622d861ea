// SPDX-License-Identifier: Apache-2.0
// Stored profiles get the names that are known now; stacks stay what they were.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <thread>

#include "profile/builder.h"
#include "profile/flame_tree.h"
#include "profile/folded_codec.h"
#include "profile/test_profiles.h"
#include "server/debuginfo/fake_names.h"
#include "server/debuginfo/naming_store.h"
#include "server/debuginfo/reasons.h"

namespace firewatch::server {
namespace {

using profile::FunctionId;
using profile::Location;
using profile::LocationId;
using profile::LocationKind;
using profile::Profile;
using symbolizer::BuildId;
using ::testing::HasSubstr;
using Frame = FakeBinaryNames::Frame;

constexpr char kHex[] = "aabbccdd";
const BuildId kId = BuildId::FromHex(kHex);

// main (named by the agent) calls two bare offsets of the same binary, and one of another.
Profile BareProfile() {
  profile::ProfileBuilder builder({{"samples", "count"}, {"cpu", "nanoseconds"}});
  const auto mapping = [&](std::string_view file, std::string_view id) {
    return builder.AddMapping({.file = builder.AddString(file),
                               .build_id = builder.AddString(id),
                               .memory_limit = 1 << 20});
  };
  const auto app = mapping("/usr/bin/app", kHex);
  const auto lib = mapping("/lib/my lib.so", "01020304");
  const auto main = builder.AddFunction("main", "main", "");
  const auto at = [&](profile::MappingId in, uint64_t offset, std::vector<profile::Line> lines) {
    return builder.AddLocation({.mapping = in,
                                .address = offset,
                                .kind = LocationKind::kNative,
                                .lines = std::move(lines)});
  };
  const LocationId in_main = at(app, 0x100, {{main, 0, 0}});
  const LocationId bare1 = at(app, 0x200, {});
  const LocationId bare2 = at(app, 0x300, {});
  const LocationId other = at(lib, 0x50, {});
  const auto sample = [&](std::vector<LocationId> stack, int64_t count) {
    const int64_t values[] = {count, count * 1000};
    builder.AddSample(builder.AddStack(stack), {}, values);
  };
  sample({bare1, in_main}, 3);
  sample({bare2, in_main}, 4);
  sample({other, bare1, in_main}, 5);
  return builder.Finish();
}

class NamingTest : public ::testing::Test, protected DebugInfoFixture {
 protected:
  std::shared_ptr<FakeBinaryNames> Names() {
    auto names = std::make_shared<FakeBinaryNames>();
    names->Add(0x100, {{"main", "app.cc", 12, 10}});
    names->Add(0x200, {{"Step", "app.h", 6, 5}, {"Work", "app.cc", 22, 20}});
    return names;
  }
  void Tell(const char* id, const char* path, ingest::NameReason reason,
            std::vector<symbolizer::ElfSegment> segments = {}) {
    google::protobuf::RepeatedPtrField<ingest::BinaryInfo> told;
    ingest::BinaryInfo& info = *told.Add();
    info.set_build_id(id);
    info.set_path(path);
    info.set_reason(reason);
    for (const auto& segment : segments) {
      auto& one = *info.add_segments();
      one.set_offset(segment.file_offset);
      one.set_size(segment.file_size);
      one.set_vaddr(segment.vaddr);
    }
    binaries->Note(told);
  }
  NameCache cache_;
};

TEST_F(NamingTest, BareLocationsGetInlinedFramesFilesAndLines) {
  source.Set(kId, NamesState::kReady, Names());
  Profile profile = BareProfile();
  std::vector<base::Hash128> before;
  for (const Location& location : profile.locations)
    before.push_back(IdentityOf(profile, location));
  const NamingStats stats = NameProfile(profile, *debuginfo, cache_);
  EXPECT_EQ(stats.looked_up, 4u);
  EXPECT_EQ(stats.improved, 2u);
  EXPECT_EQ(profile::LocationText(profile, LocationId(1)),
            "[/usr/bin/app aabbccdd 200 kind 1 | Step _ZStep app.h 5 6:0 | Work _ZWork app.cc 20 "
            "22:0]");
  EXPECT_EQ(profile::LocationText(profile, LocationId(0)),
            "[/usr/bin/app aabbccdd 100 kind 1 | main _Zmain app.cc 10 12:0]");
  EXPECT_TRUE(profile.locations[2].lines.empty());
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_EQ(IdentityOf(profile, profile.locations[i]), before[i]) << i;
  }
  EXPECT_EQ(profile.stacks.size(), BareProfile().stacks.size());
  EXPECT_TRUE(profile.mappings[1].has_inline_frames && profile.mappings[1].has_line_numbers);
  EXPECT_EQ(profile::WriteFolded(profile, 0),
            "main;Work;Step 3\nmain;Work;Step;my lib.so+0x50 5\nmain;app+0x300 4\n");
}

TEST_F(NamingTest, TheBestKnownWins) {
  auto names = std::make_shared<FakeBinaryNames>();
  names->Add(0x100, {{"worse", "", 0, 0}});
  names->Add(0x200, {{"symbol only", "", 0, 0}});
  source.Set(kId, NamesState::kReady, names);
  Profile profile = BareProfile();
  NameProfile(profile, *debuginfo, cache_);
  // One name without a line is no better than the agent's own.
  EXPECT_THAT(profile::LocationText(profile, LocationId(0)), HasSubstr("| main main"));
  EXPECT_THAT(profile::LocationText(profile, LocationId(1)), HasSubstr("| symbol only"));
  // A location that has everything is not asked for.
  source.Set(kId, NamesState::kReady, Names());
  NameProfile(profile, *debuginfo, cache_);
  EXPECT_EQ(NameProfile(profile, *debuginfo, cache_).looked_up, 2u);
}

TEST_F(NamingTest, ADebugFileAloneNeedsTheSegmentsThatTheAgentTold) {
  auto names = std::make_shared<FakeBinaryNames>();
  names->by_vaddr = true;
  names->Add(0x401200, {{"Work", "app.cc", 22, 20}});
  source.Set(kId, NamesState::kReady, names);
  Profile profile = BareProfile();
  EXPECT_EQ(NameProfile(profile, *debuginfo, cache_).improved, 0u);
  // What was not found before must not stay so.
  Tell(kHex, "/usr/bin/app", ingest::NAME_REASON_STRIPPED,
       {{.file_offset = 0x200, .file_size = 0x80, .vaddr = 0x401200, .executable = true}});
  EXPECT_EQ(NameProfile(profile, *debuginfo, cache_).improved, 1u);
  EXPECT_THAT(profile::LocationText(profile, LocationId(1)), HasSubstr("| Work"));
}

TEST_F(NamingTest, AnOffsetIsLookedUpOnce) {
  const auto names = Names();
  source.Set(kId, NamesState::kReady, names);
  for (int i = 0; i < 5; ++i) {
    Profile profile = BareProfile();
    EXPECT_EQ(NameProfile(profile, *debuginfo, cache_).improved, 2u);
  }
  EXPECT_EQ(names->finds, 3);
  EXPECT_EQ(names->texts, 5);  // main, app.cc, Step, app.h, Work
  // A better index replaces what was cached.
  const auto better = Names();
  better->Add(0x300, {{"Late", "late.cc", 1, 1}});
  source.Set(kId, NamesState::kReady, better);
  Profile profile = BareProfile();
  EXPECT_EQ(NameProfile(profile, *debuginfo, cache_).improved, 3u);
}

// Of one file: what is known already is not asked for again, the rest in few calls, and each answer
// goes to its location.
TEST_F(NamingTest, AllOffsetsOfAFileAreLookedUpTogether) {
  constexpr uint64_t kLocations = 2000;
  const auto names = std::make_shared<FakeBinaryNames>();
  names->by_vaddr = true;
  for (uint64_t i = 0; i < kLocations; i += 3) {
    const auto line = static_cast<uint32_t>(i + 1);
    names->Add(0x400000 + i * 8, {{"Inner", "app.h", line, 1}, {"Outer", "app.cc", 2, 1}});
  }
  source.Set(kId, NamesState::kReady, names);
  Tell(kHex, "/usr/bin/app", ingest::NAME_REASON_STRIPPED,
       {{.file_offset = 0x100, .file_size = 1 << 20, .vaddr = 0x400100, .executable = true}});

  const auto profile_of = [](uint64_t step) {
    profile::ProfileBuilder builder({{"samples", "count"}});
    const auto app = builder.AddMapping(
        {.file = builder.AddString("/usr/bin/app"), .build_id = builder.AddString(kHex)});
    const auto other = builder.AddMapping(
        {.file = builder.AddString("/lib/other.so"), .build_id = builder.AddString("01020304")});
    for (uint64_t i = 0; i < kLocations; i += step) {
      // Between those of another file, backwards.
      const uint64_t offset = (kLocations - 1 - i) * 8;
      for (const auto mapping : {app, other}) {
        const LocationId location = builder.AddLocation(
            {.mapping = mapping, .address = offset, .kind = LocationKind::kNative, .lines = {}});
        const int64_t values[] = {1};
        builder.AddSample(builder.AddStack(std::vector<LocationId>{location}), {}, values);
      }
    }
    return builder.Finish();
  };
  const auto check = [&](const Profile& profile) {
    for (const Location& location : profile.locations) {
      const bool is_app =
          profile.String(profile.mappings[location.mapping.index()].build_id) == kHex;
      const uint64_t number = location.address / 8;
      // Offsets below the segment have no address.
      const bool has_name = is_app && number % 3 == 0 && location.address >= 0x100;
      ASSERT_EQ(location.lines.size(), has_name ? 2u : 0u) << location.address;
      if (has_name) EXPECT_EQ(location.lines[0].line, static_cast<int64_t>(number + 1));
    }
  };
  Profile some = profile_of(2);
  EXPECT_EQ(NameProfile(some, *debuginfo, cache_).looked_up, 2 * kLocations / 2);
  check(some);
  EXPECT_EQ(names->finds, static_cast<int>(kLocations / 2));
  Profile all = profile_of(1);
  const NamingStats stats = NameProfile(all, *debuginfo, cache_);
  EXPECT_EQ(stats.looked_up, 2 * kLocations);
  EXPECT_EQ(stats.improved, (kLocations + 2) / 3 - 11) << "11 of them are below 0x100";
  check(all);
  EXPECT_EQ(names->finds, static_cast<int>(kLocations));
  EXPECT_LE(names->calls, 10);
}

TEST_F(NamingTest, TheCacheKeepsToItsBound) {
  NameCache small(/*max_bytes=*/10'000);
  for (uint32_t i = 1; i < 200; ++i) {
    const BuildId id = BuildId::FromHex(fmt::format("{:08x}", i));
    const auto names = std::make_shared<FakeBinaryNames>();
    std::vector<uint64_t> offsets(50);
    std::iota(offsets.begin(), offsets.end(), 0);
    small.Of(id, names, nullptr)->Find(offsets, [](size_t, std::span<const NameFrame>) {});
    EXPECT_EQ(names->finds, 50);
  }
  // Each shard is emptied when it is asked past the bound.
  EXPECT_LT(small.bytes(), 16u * 50 * 64 * 2);
}

TEST_F(NamingTest, QueriesAtTheSameTimeAgree) {
  source.Set(kId, NamesState::kReady, Names());
  std::vector<std::thread> threads;
  std::atomic<int> improved{0};
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      for (int j = 0; j < 50; ++j) {
        if (i == 0) source.Set(kId, NamesState::kReady, Names());
        Profile profile = BareProfile();
        improved += static_cast<int>(NameProfile(profile, *debuginfo, cache_).improved);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(improved, 8 * 50 * 2);
}

// --- reasons

TEST_F(NamingTest, EachBareFrameSaysWhy) {
  Tell(kHex, "/usr/bin/app", ingest::NAME_REASON_STRIPPED);
  const Profile profile = BareProfile();
  BareReasons reasons(profile, debuginfo.get());
  EXPECT_THAT(reasons.All(), ::testing::ElementsAre(0, ingest::NAME_REASON_STRIPPED,
                                                    ingest::NAME_REASON_STRIPPED, kReasonUnknown));
  const auto after = [&](NamesState state) {
    source.Set(kId, state, std::make_shared<FakeBinaryNames>());
    return BareReasons(profile, debuginfo.get()).All()[1];
  };
  EXPECT_EQ(after(NamesState::kBuilding), ingest::NAME_REASON_PENDING);
  EXPECT_EQ(after(NamesState::kReady), ingest::NAME_REASON_NO_SYMBOLS);
  EXPECT_EQ(after(NamesState::kMismatch), ingest::NAME_REASON_DEBUG_MISMATCH);
  EXPECT_EQ(after(NamesState::kOverBudget), ingest::NAME_REASON_OVER_BUDGET);
  EXPECT_EQ(after(NamesState::kRefused), ingest::NAME_REASON_REFUSED);
  EXPECT_EQ(after(NamesState::kFailed), ingest::NAME_REASON_STRIPPED);

  const Profile small = profile::SmallTestProfile();
  BareReasons other(small, nullptr);
  std::vector<std::string_view> keys;
  for (const uint8_t reason : other.All()) keys.push_back(ReasonKey(reason));
  EXPECT_THAT(keys, ::testing::ElementsAre("none", "none", "unknown", "none", "none", "no_build_id",
                                           "anonymous_memory", "unknown_memory"));
}

TEST_F(NamingTest, TheTreeCarriesReasonsAndSources) {
  Tell(kHex, "/usr/bin/app", ingest::NAME_REASON_STRIPPED);
  source.Set(BuildId::FromHex("01020304"), NamesState::kBuilding);
  Profile profile = BareProfile();
  const std::vector<uint8_t> reasons = BareReasons(profile, debuginfo.get()).All();
  const profile::FlameTree tree = profile::BuildFlameTree(profile, {.reasons = reasons});
  const auto node = [&](std::string_view name) {
    for (size_t i = 0; i < tree.size(); ++i) {
      if (tree.names[tree.name[i]] == name) return i;
    }
    return size_t{0};
  };
  EXPECT_EQ(tree.flags[node("main")], 0);
  EXPECT_EQ(tree.flags[node("app+0x200")], 4 | ingest::NAME_REASON_STRIPPED << 4);
  EXPECT_EQ(tree.flags[node("my lib.so+0x50")], 4 | ingest::NAME_REASON_PENDING << 4);
}

TEST_F(NamingTest, TheTableSaysWhatLacksNamesAndWhatHelps) {
  Tell(kHex, "/usr/bin/app", ingest::NAME_REASON_STRIPPED);
  const UnnamedFrames unnamed = FindUnnamed(BareProfile(), 0, debuginfo.get());
  EXPECT_EQ(unnamed.total, 12);
  EXPECT_EQ(unnamed.all_frames, 3 * 2 + 4 * 2 + 5 * 3);
  EXPECT_EQ(unnamed.frames, 3 + 4 + 5 * 2);
  ASSERT_EQ(unnamed.binaries.size(), 2u);
  EXPECT_EQ(unnamed.binaries[0].path, "/usr/bin/app");
  EXPECT_EQ(unnamed.binaries[0].frames, 12);
  EXPECT_EQ(unnamed.binaries[0].total, 12);
  EXPECT_EQ(unnamed.binaries[0].self, 7);
  EXPECT_EQ(unnamed.binaries[1].build_id, "01020304");
  EXPECT_EQ(unnamed.binaries[1].self, 5);
  EXPECT_EQ(ReasonAdvice(ingest::NAME_REASON_STRIPPED, kHex, "/usr/bin/app"),
            "firewatch debuginfo upload /usr/bin/app");
  EXPECT_EQ(ReasonAdvice(kReasonUnknown, "01020304", "/lib/my lib's.so"),
            "firewatch debuginfo upload '/lib/my lib'\\''s.so'");
  EXPECT_EQ(ReasonAdvice(ingest::NAME_REASON_STRIPPED, "", "/usr/bin/app"), "");
}

TEST_F(NamingTest, ReasonsAndKeysOfTheProtocolAgree) {
  for (int reason = 0; reason < ingest::NameReason_ARRAYSIZE; ++reason) {
    std::string name = ingest::NameReason_Name(reason).substr(12);
    for (char& c : name) c = static_cast<char>(std::tolower(c));
    EXPECT_EQ(ReasonKey(static_cast<uint8_t>(reason)), name);
    EXPECT_LT(reason, 15);
  }
}

}  // namespace
}  // namespace firewatch::server
