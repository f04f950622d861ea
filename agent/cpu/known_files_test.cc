// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/known_files.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/core/losses.h"
#include "agent/cpu/fake_table_memory.h"
#include "base/status.h"
#include "symbolizer/testing/fake_symbolizer.h"

namespace firewatch::agent {
namespace {

constexpr uint64_t kText = 0x400000;

class KnownFilesTest : public testing::Test {
 protected:
  Process MakeProcess(const std::string& path) {
    symbolizer::FileIdentity identity;
    identity.path = path;
    Process process;
    process.pid = Pid{7};
    process.mappings = MappingSet().With({.start = kText,
                                          .end = kText + 0x3000,
                                          .file_offset = 0x1000,
                                          .file = names_.Intern(identity)});
    return process;
  }

  static fw_file_note Note(uint64_t inode) {
    return {.start = kText,
            .end = kText + 0x3000,
            .file_offset = 0x1000,
            .inode_address = inode << 8,
            .inode = inode,
            .device = 1,
            .generation = 0};
  }

  void Send(const fw_file_note& note, const Process& process) {
    files_.OnNotes(std::span(&note, 1), process);
  }

  symbolizer::FakeSymbolizer names_;
  FakeTableMemory memory_{FW_TABLES_MAX, FW_KNOWN_FILES_MAX};
  base::MetricsRegistry metrics_;
  KnownFiles files_{memory_, [] { return RoomFor(uint64_t{64} << 20); }, names_, metrics_};
};

TEST_F(KnownFilesTest, ATableThatIsThereIsLoadedWithTheFirstNote) {
  const TableForTest table(3);
  names_.tables.insert_or_assign("/bin/app", table.Map());
  Send(Note(5), MakeProcess("/bin/app"));
  ASSERT_TRUE(memory_.known_files.contains(5));
  const fw_known_file known = memory_.known_files[5];
  EXPECT_EQ(known.file_id, 0u);
  EXPECT_EQ(memory_.tables()[known.table].state, FW_TABLE_READY);
  EXPECT_FALSE(files_.building());
}

TEST_F(KnownFilesTest, AFileIsKnownBeforeItsTableIsBuilt) {
  names_.tables.insert_or_assign("/bin/app", base::Unavailable("at it"));
  Send(Note(5), MakeProcess("/bin/app"));
  ASSERT_TRUE(memory_.known_files.contains(5));
  const uint32_t index = memory_.known_files[5].table;
  ASSERT_NE(index, FW_NO_TABLE);
  EXPECT_EQ(memory_.tables()[index].state, FW_TABLE_ABSENT);
  EXPECT_TRUE(files_.building());
  files_.Advance(1);
  EXPECT_TRUE(files_.building());
  const TableForTest table(3);
  names_.tables.insert_or_assign("/bin/app", table.Map());
  files_.Advance(1);
  EXPECT_FALSE(files_.building());
  EXPECT_EQ(memory_.known_files[5].table, index);
  EXPECT_EQ(memory_.tables()[index].state, FW_TABLE_READY);
}

TEST_F(KnownFilesTest, AFileThatDoesNotComeIsWaitedForWithoutHurry) {
  names_.tables.insert_or_assign("/bin/app", base::Unavailable("gone, may come back"));
  files_.Advance(100);
  Send(Note(5), MakeProcess("/bin/app"));
  files_.Advance(102);
  EXPECT_TRUE(files_.building());
  files_.Advance(104);
  EXPECT_FALSE(files_.building());
  names_.tables.insert_or_assign("/bin/lib", base::Unavailable("at it"));
  Send(Note(6), MakeProcess("/bin/lib"));
  EXPECT_TRUE(files_.building()) << "another file has come";
  const TableForTest table(3);
  names_.tables.insert_or_assign("/bin/app", table.Map());
  files_.Advance(200);
  EXPECT_EQ(memory_.tables()[memory_.known_files[5].table].state, FW_TABLE_READY);
}

TEST_F(KnownFilesTest, AFileThatNobodyMapsIsGivenUpAfterAMinute) {
  const TableForTest table(3);
  names_.tables.insert_or_assign("/bin/app", table.Map());
  files_.Advance(100);
  Send(Note(5), MakeProcess("/bin/app"));
  Send(Note(6), MakeProcess("/bin/none"));
  const uint32_t index = memory_.known_files[5].table;
  files_.Advance(159);
  symbolizer::FileSet kept;
  files_.ForgetUnused(&kept);
  EXPECT_TRUE(memory_.known_files.contains(5)) << "too early";
  EXPECT_TRUE(kept.contains(symbolizer::FileId{0}));
  memory_.tables()[index].last_used_s = 130;  // by a process that ended
  files_.Advance(189);
  kept = {};
  kept.Add(symbolizer::FileId{1});
  files_.ForgetUnused(&kept);
  EXPECT_TRUE(memory_.known_files.contains(5)) << "its table was used a moment ago";
  files_.Advance(190);
  kept = {};
  kept.Add(symbolizer::FileId{1});
  files_.ForgetUnused(&kept);
  EXPECT_FALSE(memory_.known_files.contains(5));
  EXPECT_EQ(memory_.tables()[index].state, FW_TABLE_ABSENT);
  EXPECT_FALSE(kept.contains(symbolizer::FileId{0}));
  ASSERT_TRUE(memory_.known_files.contains(6)) << "somebody maps it";

  // A refusal goes with its id: what comes under that id later is asked for.
  kept = {};
  files_.ForgetUnused(&kept);
  EXPECT_FALSE(memory_.known_files.contains(6));
  files_.OnForgotten(symbolizer::FileId{1});
  names_.tables.insert_or_assign("/bin/none", table.Map());
  Send(Note(7), MakeProcess("/bin/none"));
  EXPECT_NE(memory_.known_files[7].table, FW_NO_TABLE);
}

TEST_F(KnownFilesTest, AFileWithoutTableIsCountedOnceWithTheReason) {
  const Process process = MakeProcess("/bin/app");
  Send(Note(5), process);
  Send(Note(6), process);  // through another mount: the same file
  EXPECT_EQ(memory_.known_files[5].table, FW_NO_TABLE);
  EXPECT_EQ(memory_.known_files[6].table, FW_NO_TABLE);
  EXPECT_EQ(memory_.known_files[6].file_id, memory_.known_files[5].file_id);
  EXPECT_EQ(LossCounter(metrics_, FW_LOSS_TABLE_REFUSED).value(), 1u);
  const TableListing listing = files_.List();
  ASSERT_EQ(listing.rows.size(), 1u);
  EXPECT_EQ(listing.rows[0].state, "none");
  EXPECT_EQ(listing.rows[0].reason, "no unwind table");
}

TEST_F(KnownFilesTest, TwoFilesOfOneBuildNameOneTable) {
  const TableForTest source(3);
  const auto table = source.Map();
  names_.tables.insert_or_assign("/bin/app", table);
  names_.tables.insert_or_assign("/bin/copy", table);
  Send(Note(5), MakeProcess("/bin/app"));
  Send(Note(6), MakeProcess("/bin/copy"));
  EXPECT_EQ(memory_.known_files[5].table, memory_.known_files[6].table);
  EXPECT_NE(memory_.known_files[5].file_id, memory_.known_files[6].file_id);
  EXPECT_EQ(files_.List().rows_loaded, table->table.counts().rows_merged);
}

TEST_F(KnownFilesTest, PassesOverMappingsThatTheProcessTableHasOtherwise) {
  const Process process = MakeProcess("/bin/app");
  fw_file_note elsewhere = Note(5);
  elsewhere.start += 0x10000;
  elsewhere.end += 0x10000;
  Send(elsewhere, process);
  fw_file_note other_offset = Note(6);
  other_offset.file_offset = 0;
  Send(other_offset, process);
  fw_file_note longer = Note(7);
  longer.end += 0x1000;
  Send(longer, process);
  EXPECT_TRUE(memory_.known_files.empty());
  // A part of what the table has as one: neighbours are joined there.
  fw_file_note part = Note(8);
  part.start += 0x1000;
  part.file_offset += 0x1000;
  Send(part, process);
  EXPECT_TRUE(memory_.known_files.contains(8));
}

TEST_F(KnownFilesTest, AnInodeWhoseTimeHasChangedHasOneKey) {
  const Process process = MakeProcess("/bin/app");
  const TableForTest table(3);
  names_.tables.insert_or_assign("/bin/app", table.Map());
  for (uint32_t generation = 1; generation <= 50; ++generation) {
    fw_file_note note = Note(5);
    note.generation = generation;
    Send(note, process);
  }
  files_.Advance(1);
  EXPECT_TRUE(memory_.known_files.contains(5));
  EXPECT_THAT(metrics_.Expose(), testing::HasSubstr("firewatch_unwind_known_files 1\n"));
  Send(Note(6), process);  // through another mount: both stay
  files_.Advance(1);
  EXPECT_THAT(metrics_.Expose(), testing::HasSubstr("firewatch_unwind_known_files 2\n"));
  EXPECT_EQ(files_.store().loads(), 1u);
}

TEST_F(KnownFilesTest, WorkBetweenTwoAdvancesIsBounded) {
  for (uint64_t inode = 1; inode <= 1000; ++inode) {
    Send(Note(inode), MakeProcess(fmt::format("/lib/{}", inode)));
  }
  EXPECT_EQ(memory_.known_files.size(), 256u);
  files_.Advance(1);
  for (uint64_t inode = 1; inode <= 1000; ++inode) {
    Send(Note(inode), MakeProcess(fmt::format("/lib/{}", inode)));
  }
  EXPECT_EQ(memory_.known_files.size(), 512u);
}

TEST_F(KnownFilesTest, AFullMapForgetsTheLeastUsed) {
  const Process process = MakeProcess("/bin/app");
  const TableForTest table(1);
  names_.tables.insert_or_assign("/bin/used", table.Map());
  Send(Note(1), MakeProcess("/bin/used"));
  const uint32_t used = memory_.known_files[1].table;
  for (uint64_t inode = 2; inode <= FW_KNOWN_FILES_MAX; ++inode) {
    Send(Note(inode), process);
    if (inode % 200 == 0) files_.Advance(1);
  }
  files_.Advance(2);
  ASSERT_EQ(memory_.known_files.size(), FW_KNOWN_FILES_MAX);
  memory_.tables()[used].last_used_s = 100;
  Send(Note(1'000'000), process);
  EXPECT_TRUE(memory_.known_files.contains(1'000'000));
  EXPECT_TRUE(memory_.known_files.contains(1));
  EXPECT_EQ(memory_.known_files.size(), FW_KNOWN_FILES_MAX - FW_KNOWN_FILES_MAX / 16 + 1);
  EXPECT_EQ(LossCounter(metrics_, FW_LOSS_FILES_FULL).value(), FW_KNOWN_FILES_MAX / 16u);
}

TEST_F(KnownFilesTest, FileIdsThatDoNotFitIntoAFrameStayUnknown) {
  Process process = MakeProcess("/bin/app");
  ProcessMapping mapping = process.mappings->all()[0];
  mapping.file = symbolizer::FileId{1u << 20};
  process.mappings = MappingSet().With(mapping);
  Send(Note(5), process);
  EXPECT_TRUE(memory_.known_files.empty());
}

}  // namespace
}  // namespace firewatch::agent
