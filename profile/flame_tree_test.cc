// SPDX-License-Identifier: Apache-2.0
#include "profile/flame_tree.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <sstream>

#include "profile/builder.h"
#include "profile/flame_codec.h"
#include "profile/folded_codec.h"
#include "profile/frame_table.h"
#include "profile/test_profiles.h"

namespace firewatch::profile {
namespace {

const std::vector<ValueType> kCountOnly = {{"samples", "count"}};

std::string PathOf(const FlameTree& tree, size_t node) {
  std::string path = tree.names[tree.name[node]];
  while (tree.parent[node] != 0) {
    node = tree.parent[node];
    path = tree.names[tree.name[node]] + ";" + path;
  }
  return path;
}

size_t Find(const FlameTree& tree, const std::string& path) {
  for (size_t i = 1; i < tree.size(); ++i) {
    if (PathOf(tree, i) == path) return i;
  }
  ADD_FAILURE() << "no node " << path;
  return 0;
}

// What every tree must be, whatever it shows.
void ExpectWellFormed(const FlameTree& tree) {
  ASSERT_GE(tree.size(), 1u);
  ASSERT_EQ(tree.names[tree.name[0]], "total");
  ASSERT_EQ(tree.parent[0], 0u);
  std::vector<int64_t> children_total(tree.size(), 0);
  for (size_t i = 1; i < tree.size(); ++i) {
    ASSERT_LT(tree.parent[i], i) << "level order";
    ASSERT_GE(tree.parent[i], tree.parent[i - 1]) << "children of one parent are adjacent";
    if (i > 1 && tree.parent[i] == tree.parent[i - 1]) {
      ASSERT_LE(tree.names[tree.name[i - 1]], tree.names[tree.name[i]]) << "sorted by name";
    }
    children_total[tree.parent[i]] += tree.total[i];
  }
  for (size_t i = 0; i < tree.size(); ++i) {
    ASSERT_EQ(tree.total[i], tree.self[i] + children_total[i]) << PathOf(tree, i);
  }
  const std::set<std::string> distinct(tree.names.begin(), tree.names.end());
  ASSERT_EQ(distinct.size(), tree.names.size());
}

std::map<std::string, int64_t> SelfByPath(const FlameTree& tree) {
  std::map<std::string, int64_t> self;
  for (size_t i = 1; i < tree.size(); ++i) {
    if (tree.self[i] != 0) self[PathOf(tree, i)] += tree.self[i];
  }
  return self;
}

TEST(FlameTreeTest, InlinedLinesAreNodesOfTheirOwnAndMarked) {
  const FlameTree tree = BuildFlameTree(SmallTestProfile(), {});
  ExpectWellFormed(tree);
  EXPECT_EQ(tree.total[0], 23);
  const size_t step = Find(tree, "main;app::Work(int);app::Step()");
  EXPECT_EQ(tree.self[step], 12);
  EXPECT_EQ(tree.total[step], 15);
  EXPECT_EQ(tree.flags[step], kFrameInlined);
  EXPECT_EQ(tree.flags[tree.parent[step]], 0);
  EXPECT_EQ(tree.names[tree.file[step]], "app");
}

TEST(FlameTreeTest, KernelAndBareFramesAreMarkedAndNamedByAddress) {
  const FlameTree tree = BuildFlameTree(SmallTestProfile(), {});
  EXPECT_EQ(tree.flags[Find(tree, "main;ksys_read;nft_do_chain")], kFrameKernel);
  EXPECT_EQ(tree.names[tree.file[Find(tree, "main;ksys_read;nft_do_chain")]], "[nf_tables]");
  EXPECT_EQ(tree.flags[Find(tree, "main;app+0x1200")], kFrameNotSymbolized);
  EXPECT_EQ(tree.flags[Find(tree, "main;[anon]+0x7f0000001000")], kFrameNotSymbolized);
  Find(tree, "main;[anon]+0x7f0000001000;[unknown]+0x1234");
  Find(tree, "main;app::Work(int);app::Step();[vdso]+0x600");
}

TEST(FlameTreeTest, ASampleWithoutFramesIsTheRootsOwn) {
  EXPECT_EQ(BuildFlameTree(SmallTestProfile(), {}).self[0], 1);
}

TEST(FlameTreeTest, TakesTheValueThatIsAskedFor) {
  EXPECT_EQ(BuildFlameTree(SmallTestProfile(), {.value_index = 1}).total[0], 23'000'000);
  for (const int absent : {-1, 2}) {
    const FlameTree tree = BuildFlameTree(SmallTestProfile(), {.value_index = absent});
    EXPECT_EQ(tree.size(), 1u);
    EXPECT_EQ(tree.total[0], 0);
  }
}

// Twin: the folded lines in a map.
TEST(FlameTreeTest, AgreesWithAMapOfFoldedLines) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    const Profile profile = RandomTestProfile(random);
    std::map<std::string, int64_t> expected;
    int64_t total = 0;
    for (const Sample& sample : profile.samples) {
      std::string line;
      for (const LocationId id : profile.stacks[sample.stack.index()]) {
        const Location& location = profile.locations[id.index()];
        for (size_t i = 0; i < std::max<size_t>(1, location.lines.size()); ++i) {
          line = FrameName(profile, location, i) + (line.empty() ? "" : ";" + line);
        }
      }
      expected[line] += sample.values[0];
      total += sample.values[0];
    }
    expected.erase("");
    std::erase_if(expected, [](const auto& entry) { return entry.second == 0; });
    const FlameTree tree = BuildFlameTree(profile, {});
    ExpectWellFormed(tree);
    ASSERT_EQ(SelfByPath(tree), expected) << "round " << round;
    ASSERT_EQ(tree.total[0], total);
  }
}

TEST(FlameTreeTest, PruningKeepsTheHeaviestAndTheExactWeight) {
  std::mt19937 random(4);
  for (int round = 0; round < 60; ++round) {
    const Profile profile = RandomTestProfile(random);
    const FlameTree full = BuildFlameTree(profile, {});
    for (const uint32_t max_nodes : {1u, 2u, 5u, 20u}) {
      const FlameTree cut = BuildFlameTree(profile, {.max_nodes = max_nodes});
      ExpectWellFormed(cut);
      ASSERT_EQ(cut.total[0], full.total[0]);
      size_t real = 0;
      for (size_t i = 0; i < cut.size(); ++i) {
        const bool other = (cut.flags[i] & kFrameOther) != 0;
        real += other ? 0 : 1;
        ASSERT_EQ(other, cut.names[cut.name[i]] == "(other)");
        if (!other && i != 0) {
          ASSERT_EQ(cut.total[i], full.total[Find(full, PathOf(cut, i))]);
        }
      }
      ASSERT_EQ(real, std::min<size_t>(max_nodes, full.size()));
    }
  }
}

TEST(FlameTreeTest, NodesOfSeveralBinariesHaveNoneAndMarksMustAgree) {
  ProfileBuilder builder(kCountOnly);
  const FunctionId f = builder.AddFunction("f", "f", "");
  const FunctionId g = builder.AddFunction("g", "g", "");
  const int64_t one = 1;
  for (const char* file : {"/a", "/b"}) {
    Location location{.mapping = builder.AddMapping({.file = builder.AddString(file)}),
                      .address = 16,
                      .kind = LocationKind::kNative};
    location.lines = {{.function = f}};
    if (file[1] == 'b') location.lines = {{.function = g}, {.function = f}};
    const LocationId id = builder.AddLocation(location);
    builder.AddSample(builder.AddStack(std::span(&id, 1)), LabelSetId(), std::span(&one, 1));
  }
  const FlameTree tree = BuildFlameTree(builder.Finish(), {});
  EXPECT_EQ(tree.names[tree.file[Find(tree, "f")]], "");
  EXPECT_EQ(tree.names[tree.file[Find(tree, "f;g")]], "b");
}

Profile DeepProfile(size_t depth) {
  ProfileBuilder builder(kCountOnly);
  Location location;
  location.lines = {{.function = builder.AddFunction("recurse", "recurse", "")}};
  const std::vector<LocationId> stack(depth, builder.AddLocation(location));
  const int64_t value = 3;
  builder.AddSample(builder.AddStack(stack), LabelSetId(), std::span(&value, 1));
  return builder.Finish();
}

TEST(FlameTreeTest, DeepStacksNeedNoStackOfOurs) {
  const Profile profile = DeepProfile(65'536);
  const FlameTree tree = BuildFlameTree(profile, {});
  EXPECT_EQ(tree.size(), 65'537u);
  EXPECT_EQ(tree.self.back(), 3);
  EXPECT_EQ(tree.total[1], 3);
  const FlameTree cut = BuildFlameTree(profile, {.max_nodes = 100});
  EXPECT_EQ(cut.size(), 101u);
  EXPECT_EQ(cut.self.back(), 3);
  EXPECT_EQ(WriteFolded(profile, 0).size(), 8u * 65'536 + 2);
}

TEST(TopFunctionsTest, RecursionCountsOncePerStack) {
  const std::vector<FunctionTotals> top = TopFunctions(DeepProfile(50), 0, 0);
  ASSERT_EQ(top.size(), 1u);
  EXPECT_EQ(top[0].self, 3);
  EXPECT_EQ(top[0].total, 3);
}

TEST(TopFunctionsTest, AreSortedBySelfThenTotalThenName) {
  const std::vector<FunctionTotals> top = TopFunctions(SmallTestProfile(), 0, 0);
  std::vector<std::string> lines;
  for (const FunctionTotals& row : top) {
    std::ostringstream line;
    line << row.name << " " << row.file << " " << row.self << " " << row.total;
    lines.push_back(line.str());
  }
  EXPECT_EQ(lines, (std::vector<std::string>{
                       "app::Step() app 12 15", "[unknown]+0x1234  4 4", "[vdso]+0x600 [vdso] 3 3",
                       "nft_do_chain [nf_tables] 2 2", "app+0x1200 app 1 1", "main app 0 22",
                       "app::Work(int) app 0 15", "[anon]+0x7f0000001000 [anon] 0 4",
                       "ksys_read [kernel] 0 2"}));
  EXPECT_EQ(TopFunctions(SmallTestProfile(), 0, 2).size(), 2u);
  EXPECT_EQ(TopFunctions(SmallTestProfile(), 0, 2)[1].name, "[unknown]+0x1234");
}

TEST(TopFunctionsTest, SelfAddsUpToTheTree) {
  std::mt19937 random(5);
  for (int round = 0; round < 100; ++round) {
    const Profile profile = RandomTestProfile(random);
    const FlameTree tree = BuildFlameTree(profile, {});
    int64_t self = tree.self[0];
    for (const FunctionTotals& row : TopFunctions(profile, 0, 0)) self += row.self;
    ASSERT_EQ(self, tree.total[0]);
  }
}

TEST(FrameNameTest, FallsBackStepByStep) {
  ProfileBuilder builder(kCountOnly);
  const Profile& profile = builder.profile();
  Location location{.address = 0x10};
  location.lines = {{.function = builder.AddFunction("", "_Zsys", "")}};
  EXPECT_EQ(FrameName(profile, location, 0), "_Zsys");
  location.lines = {{.function = builder.AddFunction("", "", "x.c")}};
  EXPECT_EQ(FrameName(profile, location, 0), "[unknown]+0x10");
  location.kind = LocationKind::kNative;
  location.mapping = builder.AddMapping(
      {.file = builder.AddString("/lib/libc.so.6"), .build_id = builder.AddString("0011")});
  EXPECT_EQ(FrameName(profile, location, 0), "libc.so.6+0x10");
  location.mapping = builder.AddMapping({.build_id = builder.AddString("00112233445566778899")});
  EXPECT_EQ(FrameName(profile, location, 0), "build-id:001122334455+0x10");
}

TEST(FoldedTest, NamesLoseWhatWouldBreakALine) {
  ProfileBuilder builder(kCountOnly);
  Location location;
  location.lines = {{.function = builder.AddFunction("a;b\nc\rd", "", "")}};
  const LocationId id = builder.AddLocation(location);
  const int64_t value = 2;
  builder.AddSample(builder.AddStack(std::span(&id, 1)), LabelSetId(), std::span(&value, 1));
  builder.AddSample(StackId(), LabelSetId(), std::span(&value, 1));
  EXPECT_EQ(WriteFolded(builder.Finish(), 0), "(no stack) 2\na:b c d 2\n");
}

TEST(FoldedTest, LinesAreSortedAndEqualOnesAdded) {
  EXPECT_EQ(WriteFolded(SmallTestProfile(), 0),
            "(no stack) 1\n"
            "main;[anon]+0x7f0000001000;[unknown]+0x1234 4\n"
            "main;app+0x1200 1\n"
            "main;app::Work(int);app::Step() 12\n"
            "main;app::Work(int);app::Step();[vdso]+0x600 3\n"
            "main;ksys_read;nft_do_chain 2\n");
}

TEST(FoldedTest, WhatDoesNotFitIsOneExactLine) {
  const std::string text = WriteFolded(SmallTestProfile(), 0, 160);
  EXPECT_EQ(text,
            "(other) 7\n"
            "main;[anon]+0x7f0000001000;[unknown]+0x1234 4\n"
            "main;app::Work(int);app::Step() 12\n");
}

// Twin of the browser's decoder.
class ColumnReader {
 public:
  explicit ColumnReader(std::string_view bytes) : rest_(bytes) {}
  uint64_t Unsigned() {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<uint8_t>(rest_.at(0));
      rest_.remove_prefix(1);
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
  }
  int64_t Signed() {
    const uint64_t value = Unsigned();
    return static_cast<int64_t>(value >> 1) ^ -static_cast<int64_t>(value & 1);
  }
  std::string Bytes(size_t size) {
    const std::string bytes(rest_.substr(0, size));
    rest_.remove_prefix(size);
    return bytes;
  }
  bool done() const { return rest_.empty(); }

 private:
  std::string_view rest_;
};

void ExpectDecodes(const FlameTree& tree) {
  const std::string encoded = EncodeFlameTree(tree);
  ColumnReader reader(encoded);
  ASSERT_EQ(reader.Bytes(5), std::string("FWFT\x02"));
  ASSERT_EQ(reader.Unsigned(), tree.size());
  ASSERT_EQ(reader.Unsigned(), tree.names.size());
  for (const std::string& name : tree.names) ASSERT_EQ(reader.Bytes(reader.Unsigned()), name);
  uint64_t parent = 0;
  for (const uint32_t expected : tree.parent) ASSERT_EQ(parent += reader.Unsigned(), expected);
  for (const uint32_t expected : tree.name) ASSERT_EQ(reader.Unsigned(), expected);
  for (const int64_t expected : tree.self) ASSERT_EQ(reader.Signed(), expected);
  for (const int64_t expected : tree.total) ASSERT_EQ(reader.Signed(), expected);
  for (const uint8_t expected : tree.flags) ASSERT_EQ(reader.Unsigned(), expected);
  for (const uint32_t expected : tree.file) ASSERT_EQ(reader.Unsigned(), expected);
  for (const uint32_t expected : tree.source) ASSERT_EQ(reader.Unsigned(), expected);
  for (const uint32_t expected : tree.line) ASSERT_EQ(reader.Unsigned(), expected);
  ASSERT_TRUE(reader.done());
}

// What the node named `name` has.
struct Seen {
  uint8_t flags = 0;
  std::string source;
  uint32_t line = 0;
  friend bool operator==(const Seen&, const Seen&) = default;
};
Seen NodeNamed(const FlameTree& tree, std::string_view name) {
  for (size_t i = 0; i < tree.size(); ++i) {
    if (tree.names[tree.name[i]] == name) {
      return {tree.flags[i], tree.names[tree.source[i]], tree.line[i]};
    }
  }
  ADD_FAILURE() << name;
  return {};
}

TEST(FlameTreeTest, NodesSayWhereTheirFunctionBegins) {
  ProfileBuilder builder(kCountOnly);
  const auto add = [&](std::string_view name, std::string_view file, int64_t start, int64_t line) {
    const FunctionId function = builder.AddFunction(name, name, file, start);
    const LocationId location = builder.AddLocation({.lines = {{function, line, 0}}});
    const int64_t one = 1;
    builder.AddSample(builder.AddStack(std::span(&location, 1)), LabelSetId(), std::span(&one, 1));
  };
  add("begins", "a.cc", 10, 12);
  add("begins", "a.cc", 10, 13);  // one function, two lines
  add("lines", "a.cc", 0, 12);
  add("one of many", "a.cc", 0, 12);
  add("one of many", "a.cc", 0, 13);
  add("template", "a.cc", 10, 0);
  add("template", "b.cc", 10, 0);
  add("huge", "a.cc", int64_t{1} << 40, 0);
  const FlameTree tree = BuildFlameTree(builder.Finish(), {});
  EXPECT_EQ(NodeNamed(tree, "begins"), (Seen{0, "a.cc", 10}));
  EXPECT_EQ(NodeNamed(tree, "lines"), (Seen{0, "a.cc", 12}));
  EXPECT_EQ(NodeNamed(tree, "one of many"), (Seen{0, "a.cc", 0}));
  EXPECT_EQ(NodeNamed(tree, "template"), (Seen{0, "", 0}));
  EXPECT_EQ(NodeNamed(tree, "huge"), (Seen{0, "a.cc", 0}));
}

TEST(FlameTreeTest, BareNodesSayWhy) {
  ProfileBuilder builder(kCountOnly);
  const auto add = [&](std::string_view file, std::string_view id, uint64_t offset) {
    const MappingId mapping =
        builder.AddMapping({.file = builder.AddString(file), .build_id = builder.AddString(id)});
    const LocationId location =
        builder.AddLocation({.mapping = mapping, .address = offset, .kind = LocationKind::kNative});
    const int64_t one = 1;
    builder.AddSample(builder.AddStack(std::span(&location, 1)), LabelSetId(), std::span(&one, 1));
  };
  add("/a/app", "01", 0x10);
  add("/a/app", "01", 0x20);
  add("/b/app", "02", 0x20);  // the same name, another binary
  const Profile profile = builder.Finish();
  const std::vector<uint8_t> reasons = {4, 4, 2};
  const FlameTree tree = BuildFlameTree(profile, {.reasons = reasons});
  EXPECT_EQ(NodeNamed(tree, "app+0x10").flags, kFrameNotSymbolized | 4 << kFrameReasonShift);
  EXPECT_EQ(NodeNamed(tree, "app+0x20").flags, kFrameNotSymbolized | kFrameReasonMixed);
  EXPECT_EQ(NodeNamed(BuildFlameTree(profile, {}), "app+0x10").flags, kFrameNotSymbolized);
}

TEST(FlameCodecTest, ColumnsDecodeToTheTree) {
  std::mt19937 random(6);
  ExpectDecodes(BuildFlameTree(SmallTestProfile(), {}));
  for (int round = 0; round < 50; ++round) {
    ExpectDecodes(BuildFlameTree(RandomTestProfile(random), {.max_nodes = 30}));
  }
}

TEST(FlameCodecTest, TheEndsOfInt64Survive) {
  ProfileBuilder builder(kCountOnly);
  const int64_t least = std::numeric_limits<int64_t>::min();
  builder.AddSample(StackId(), LabelSetId(), std::span(&least, 1));
  ExpectDecodes(BuildFlameTree(builder.Finish(), {}));
}

TEST(FlameCodecTest, AnEmptyTreeIsTheseBytes) {
  EXPECT_EQ(EncodeFlameTree(BuildFlameTree(ProfileBuilder({}).Finish(), {})),
            std::string("FWFT\x02\x01\x02\x05total\x00\x00\x00\x00\x00\x00\x01\x01\x00", 22));
}

}  // namespace
}  // namespace firewatch::profile
