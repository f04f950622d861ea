// SPDX-License-Identifier: Apache-2.0
#include "server/debuginfo/binary_registry.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/status.h"
#include "server/debuginfo/fake_names.h"

namespace firewatch::server {
namespace {

using Binaries = google::protobuf::RepeatedPtrField<ingest::BinaryInfo>;

ingest::BinaryInfo& Add(Binaries& all, const std::string& id, const std::string& path,
                        ingest::NameReason reason, std::vector<std::array<uint64_t, 3>> segments) {
  ingest::BinaryInfo& info = *all.Add();
  info.set_build_id(id);
  info.set_path(path);
  info.set_reason(reason);
  for (const auto& [offset, vaddr, size] : segments) {
    auto& segment = *info.add_segments();
    segment.set_offset(offset);
    segment.set_vaddr(vaddr);
    segment.set_size(size);
  }
  return info;
}

class BinaryRegistryTest : public ::testing::Test, protected DebugInfoFixture {
 protected:
  std::string log_path() const { return directory + "/binaries"; }
  std::string Log() const {
    std::stringstream bytes;
    bytes << std::ifstream(log_path()).rdbuf();
    return bytes.str();
  }
};

TEST_F(BinaryRegistryTest, WhatAgentsToldIsThereAfterARestart) {
  Binaries told;
  Add(told, "aabb", "/usr/bin/app", ingest::NAME_REASON_STRIPPED, {{0x1000, 0x401000, 0x500}});
  Add(told, "", "/opt/no id", ingest::NAME_REASON_NO_BUILD_ID, {});
  binaries->Note(told);
  Reopen();
  const auto app = binaries->Find("aabb", "");
  ASSERT_NE(app, nullptr);
  EXPECT_EQ(app->path, "/usr/bin/app");
  ASSERT_EQ(app->segments.size(), 1u);
  EXPECT_EQ(app->segments[0].vaddr, 0x401000u);
  EXPECT_TRUE(app->segments[0].executable);
  ASSERT_NE(binaries->Find("", "/opt/no id"), nullptr);
  EXPECT_EQ(binaries->Find("", "/opt/no id")->reason, ingest::NAME_REASON_NO_BUILD_ID);
  EXPECT_EQ(binaries->Find("ccdd", "/usr/bin/app"), nullptr);
}

TEST_F(BinaryRegistryTest, AWindowThatKnowsLessTakesNothingAway) {
  Binaries told, less;
  Add(told, "aabb", "/usr/bin/app", ingest::NAME_REASON_STRIPPED, {{0x1000, 0x401000, 0x500}});
  Add(less, "aabb", "/other/path", ingest::NAME_REASON_PENDING, {});
  binaries->Note(told);
  binaries->Note(less);
  EXPECT_EQ(binaries->Find("aabb", "")->segments.size(), 1u);
  EXPECT_EQ(binaries->Find("aabb", "")->path, "/usr/bin/app");
  EXPECT_EQ(binaries->Find("aabb", "")->reason, ingest::NAME_REASON_PENDING);
}

TEST_F(BinaryRegistryTest, AgentsThatContradictEachOtherDoNotFillTheDisk) {
  Binaries one, other;
  Add(one, "aabb", "/a", ingest::NAME_REASON_STRIPPED, {{0, 0x1000, 0x10}});
  Add(other, "aabb", "/a", ingest::NAME_REASON_NO_FILE, {{0, 0x2000, 0x10}});
  binaries->Note(one);
  const size_t before = Log().size();
  for (int i = 0; i < 1000; ++i) {
    clock.AdvanceNs(1'000'000'000);
    binaries->Note(i % 2 == 0 ? other : one);
  }
  EXPECT_LT(Log().size(), 4 * before);
}

TEST_F(BinaryRegistryTest, NonsenseIsRefusedEntryByEntry) {
  Binaries told;
  Add(told, "xyz", "/a", ingest::NAME_REASON_STRIPPED, {});
  Add(told, "", "", ingest::NAME_REASON_STRIPPED, {});
  Add(told, "01", "/a", ingest::NAME_REASON_STRIPPED, {{10, 0, 10}, {15, 0, 10}});
  Add(told, "02", "/a", ingest::NAME_REASON_STRIPPED, {{UINT64_MAX, 0, 10}});
  Add(told, "03", "/a", ingest::NAME_REASON_STRIPPED, {{0, UINT64_MAX, 10}});
  Add(told, "04", "/a", ingest::NAME_REASON_STRIPPED, {{0, 0, 0}});
  Add(told, "05", std::string(5000, 'x'), ingest::NAME_REASON_STRIPPED, {});
  Add(told, "06", "/ok", static_cast<ingest::NameReason>(77), {}).set_detail("a\nb\x1b[31m");
  binaries->Note(told);
  EXPECT_EQ(binaries->size(), 1u);
  EXPECT_EQ(binaries->Find("06", "")->reason, ingest::NAME_REASON_NONE);
  EXPECT_EQ(binaries->Find("06", "")->detail, "a b [31m");
}

TEST_F(BinaryRegistryTest, ADamagedLogGivesWhatStandsBeforeTheDamage) {
  Binaries told;
  for (int i = 10; i < 20; ++i) {
    Add(told, std::to_string(i), "/a", ingest::NAME_REASON_STRIPPED, {{0, 0x1000, 0x10}});
  }
  binaries->Note(told);
  std::string log = Log();
  log[log.size() / 2] ^= 0x40;
  std::ofstream(log_path()) << log << "tail";
  Reopen();
  EXPECT_GT(binaries->size(), 2u);
  EXPECT_LT(binaries->size(), 8u);
  binaries->Note(told);
  Reopen();
  EXPECT_EQ(binaries->size(), 10u);
}

TEST_F(BinaryRegistryTest, TheBoundHolds) {
  for (int i = 0; i < 70; ++i) {
    Binaries told;
    for (int j = 0; j < 1000; ++j) {
      Add(told, fmt::format("{:08x}", i * 1000 + j), "/a", ingest::NAME_REASON_STRIPPED, {});
    }
    binaries->Note(told);
  }
  EXPECT_LE(binaries->size(), BinaryRegistry::kMaxRecords);
  EXPECT_GT(binaries->size(), BinaryRegistry::kMaxRecords / 2);
  EXPECT_NE(binaries->Find(fmt::format("{:08x}", 69'999), ""), nullptr);
  EXPECT_EQ(binaries->Find("00000000", ""), nullptr);
}

}  // namespace
}  // namespace firewatch::server
