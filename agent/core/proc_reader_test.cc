// SPDX-License-Identifier: Apache-2.0
#include "agent/core/proc_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/status.h"

namespace firewatch::agent {
namespace {

std::vector<ProcMapsEntry> Maps(std::string_view text) {
  std::vector<ProcMapsEntry> entries;
  EXPECT_EQ(ParseProcMaps(text, &entries), 0u);
  return entries;
}

TEST(ProcStatTest, NameAndParentAndFlagsAreRead) {
  const auto stat = ParseProcStat("42 (cat) R 7 42 42 34816 42 4194304 1 0 0 0\n");
  ASSERT_TRUE(stat.ok());
  EXPECT_EQ(stat->comm, "cat");
  EXPECT_EQ(stat->parent, Pid{7});
  EXPECT_FALSE(stat->kernel_thread);
}

TEST(ProcStatTest, NameMayHoldSpacesAndParentheses) {
  const auto stat = ParseProcStat("42 (a) S 9 (b c) R 7 1 1 0 -1 0 0\n");
  ASSERT_TRUE(stat.ok());
  EXPECT_EQ(stat->comm, "a) S 9 (b c");
  EXPECT_EQ(stat->parent, Pid{7});
}

TEST(ProcStatTest, NameMayHoldALineBreak) {
  const auto stat = ParseProcStat("42 (a\n) S) R 7 1 1 0 -1 0 0\n");
  ASSERT_TRUE(stat.ok());
  EXPECT_EQ(stat->comm, "a\n) S");
}

TEST(ProcStatTest, KernelThreadHasItsFlag) {
  const auto stat = ParseProcStat("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0\n");
  ASSERT_TRUE(stat.ok());
  EXPECT_TRUE(stat->kernel_thread);
}

TEST(ProcStatTest, CutTextIsRefused) {
  for (const char* text : {"", "42", "42 (cat", "42 (cat)", "42 (cat) R", "42 (cat) R 7 1 1 0 -1",
                           "42 )cat( R 7 1 1 0 -1 0"}) {
    EXPECT_FALSE(ParseProcStat(text).ok()) << text;
  }
}

TEST(ProcStatusTest, ThreadGroupAndParentAreRead) {
  const auto status = ParseProcStatus("Name:\tcat\nState:\tR\nTgid:\t41\nPid:\t42\nPPid:\t7\n");
  ASSERT_TRUE(status.ok());
  EXPECT_EQ(status->thread_group, Pid{41});
  EXPECT_EQ(status->parent, Pid{7});
}

TEST(ProcStatusTest, TextWithoutThreadGroupIsRefused) {
  EXPECT_FALSE(ParseProcStatus("Name:\tcat\nPPid:\t7\n").ok());
  EXPECT_FALSE(ParseProcStatus("Tgid:\tx\nPPid:\t7\n").ok());
}

TEST(ProcMapsTest, OnlyExecutableLinesAreKept) {
  const auto maps = Maps(
      "55d620d89000-55d620d8b000 r--p 00000000 fe:00 247026                     /usr/bin/cat\n"
      "55d620d8b000-55d620d90000 r-xp 00002000 fe:00 247026                     /usr/bin/cat\n"
      "55d620d94000-55d620d95000 rw-p 0000a000 fe:00 247026                     /usr/bin/cat\n");
  ASSERT_EQ(maps.size(), 1u);
  EXPECT_EQ(maps[0].start, 0x55d620d8b000u);
  EXPECT_EQ(maps[0].end, 0x55d620d90000u);
  EXPECT_EQ(maps[0].file_offset, 0x2000u);
  EXPECT_EQ(maps[0].file.path, "/usr/bin/cat");
  EXPECT_EQ(maps[0].file.device_major, 0xfeu);
  EXPECT_EQ(maps[0].file.device_minor, 0u);
  EXPECT_EQ(maps[0].file.inode, 247026u);
  EXPECT_TRUE(maps[0].file.build_id.empty());
}

TEST(ProcMapsTest, PathMayHoldSpacesAndSayThatItIsDeleted) {
  const auto maps = Maps("1000-2000 r-xp 0 fe:00 5                     /opt/my app/x (deleted)\n");
  ASSERT_EQ(maps.size(), 1u);
  EXPECT_EQ(maps[0].file.path, "/opt/my app/x (deleted)");
  EXPECT_EQ(WithoutDeleted(maps[0].file.path), "/opt/my app/x");
}

TEST(ProcMapsTest, EscapedLineBreakIsUnescapedAndNothingElse) {
  const auto maps = Maps("1000-2000 r-xp 0 fe:00 5 /a\\012b\\040c\\\\012d\n");
  ASSERT_EQ(maps.size(), 1u);
  EXPECT_EQ(maps[0].file.path, "/a\nb\\040c\\\nd");
}

TEST(ProcMapsTest, MemoryWithoutAFileIsAnonymous) {
  const auto maps = Maps(
      "1000-2000 rwxp 00000000 00:00 0 \n"
      "2000-3000 rwxp 00000000 00:00 0\n"
      "3000-4000 rwxp 00000000 00:00 0                          [heap]\n"
      "4000-5000 rwxp 00000000 00:00 0                          [anon:jit code]\n"
      "5000-6000 rwxs 00000000 00:01 9                          /SYSV00000000 (deleted)\n");
  ASSERT_EQ(maps.size(), 5u);
  EXPECT_EQ(maps[0].file.path, "//anon");
  for (const ProcMapsEntry& entry : maps) EXPECT_TRUE(IsAnonymousMapping(entry.file.path));
}

TEST(ProcMapsTest, AnonymousTextInsideAFileIsThatFiles) {
  const auto maps = Maps(
      "400000-500000 r--p 00000000 fe:00 5 /opt/db\n"
      "500000-600000 r-xp 00100000 fe:00 5 /opt/db\n"
      "600000-c00000 r-xp 00000000 00:00 0 \n"
      "c00000-d00000 r-xp 00800000 fe:00 5 /opt/db\n"
      "d00000-e00000 r-xp 00000000 00:00 0 \n");
  ASSERT_EQ(maps.size(), 4u);
  EXPECT_TRUE(maps[1].remapped);
  EXPECT_EQ(maps[1].file, maps[0].file);
  EXPECT_EQ(maps[1].file_offset, 0x200000u);
  EXPECT_FALSE(maps[0].remapped || maps[2].remapped || maps[3].remapped);
  EXPECT_TRUE(IsAnonymousMapping(maps[3].file.path));
}

TEST(ProcMapsTest, TextThatIsAnonymousAsAWholeLiesBetweenDataOfItsFile) {
  const auto maps = Maps(
      "400000-500000 r--p 00000000 fe:00 5 /opt/db\n"
      "500000-600000 r-xp 00000000 00:00 0 [anon:text]\n"
      "600000-610000 rw-p 00000000 00:00 0 \n"
      "610000-700000 r--p 00210000 fe:00 5 /opt/db\n");
  ASSERT_EQ(maps.size(), 1u);
  EXPECT_TRUE(maps[0].remapped);
  EXPECT_EQ(maps[0].file_offset, 0x100000u);
}

TEST(ProcMapsTest, ExecutableNeighbourTellsTheDistanceOfSegmentsThatLieApart) {
  const char* const kText =
      "600000-800000 r-xp 00000000 00:00 0 \n"
      "800000-900000 r-xp 003ff000 fe:00 5 /opt/db\n";
  const auto maps = Maps(std::string("400000-600000 r--p 00000000 fe:00 5 /opt/db\n") + kText);
  ASSERT_EQ(maps.size(), 2u);
  EXPECT_TRUE(maps[0].remapped);
  EXPECT_EQ(maps[0].file_offset, 0x1ff000u);
  // Neither of both is executable: nobody tells.
  const auto unknown = Maps(
      "400000-600000 r--p 00000000 fe:00 5 /opt/db\n"
      "600000-800000 r-xp 00000000 00:00 0 \n"
      "800000-900000 r--p 003ff000 fe:00 5 /opt/db\n");
  ASSERT_EQ(unknown.size(), 1u);
  EXPECT_FALSE(unknown[0].remapped);
}

TEST(ProcMapsTest, AnonymousCodeBesideAFileStaysAnonymous) {
  for (const char* text :
       {// a gap before or after
        "400000-500000 r-xp 00000000 fe:00 5 /a\n501000-600000 r-xp 00000000 00:00 0 \n"
        "600000-700000 r-xp 00200000 fe:00 5 /a\n",
        "400000-500000 r-xp 00000000 fe:00 5 /a\n500000-5ff000 r-xp 00000000 00:00 0 \n"
        "600000-700000 r-xp 00200000 fe:00 5 /a\n",
        // two files, or the file on one side only
        "400000-500000 r-xp 00000000 fe:00 5 /a\n500000-600000 r-xp 00000000 00:00 0 \n"
        "600000-700000 r-xp 00200000 fe:00 6 /b\n",
        "400000-500000 r-xp 00000000 fe:00 5 /a\n500000-600000 r-xp 00000000 00:00 0 \n",
        "500000-600000 r-xp 00000000 00:00 0 \n600000-700000 r-xp 00200000 fe:00 5 /a\n"}) {
    for (const ProcMapsEntry& entry : Maps(text)) EXPECT_FALSE(entry.remapped) << text;
  }
}

TEST(ProcMapsTest, VdsoAndMemfdAreNotAnonymous) {
  EXPECT_FALSE(IsAnonymousMapping("[vdso]"));
  EXPECT_FALSE(IsAnonymousMapping("/memfd:jit (deleted)"));
  EXPECT_FALSE(IsAnonymousMapping("/usr/bin/anon"));
}

TEST(ProcMapsTest, VsyscallAtTheTopOfTheAddressSpaceIsRead) {
  const auto maps = Maps("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0    [vsyscall]\n");
  ASSERT_EQ(maps.size(), 1u);
  EXPECT_EQ(maps[0].start, 0xffffffffff600000u);
}

TEST(ProcMapsTest, MalformedLinesAreCountedAndSkipped) {
  std::vector<ProcMapsEntry> entries;
  EXPECT_EQ(ParseProcMaps("nonsense\n"
                          "1000 r-xp 0 fe:00 5 /a\n"
                          "2000-1000 r-xp 0 fe:00 5 /a\n"
                          "1000-2000 r-x 0 fe:00 5 /a\n"
                          "1000-2000 r-xp zz fe:00 5 /a\n"
                          "1000-2000 r-xp 0 fe 5 /a\n"
                          "1000-2000 r-xp 0 fe:00\n"
                          "11111111111111111-2 r-xp 0 fe:00 5 /a\n"
                          "3000-4000 r-xp 0 fe:00 5 /good\n",
                          &entries),
            8u);
  ASSERT_EQ(entries.size(), 1u);
  EXPECT_EQ(entries[0].file.path, "/good");
}

TEST(ProcMapsTest, DeepPathIsReadInFull) {
  std::string path;
  for (int i = 0; i < 400; ++i) path += "/directory";
  const auto maps = Maps("1000-2000 r-xp 0 fe:00 5 " + path + "\n");
  ASSERT_EQ(maps.size(), 1u);
  EXPECT_EQ(maps[0].file.path, path);
}

TEST(ProcReaderTest, ThisProcessIsReadable) {
  const ProcReader reader("/proc");
  const Pid self{static_cast<uint32_t>(::getpid())};
  const auto stat = reader.ReadStat(self);
  ASSERT_TRUE(stat.ok()) << base::ToString(stat.status());
  EXPECT_EQ(stat->parent, Pid{static_cast<uint32_t>(::getppid())});
  EXPECT_FALSE(stat->kernel_thread);
  const auto status = reader.ReadStatus(self);
  ASSERT_TRUE(status.ok());
  EXPECT_EQ(status->thread_group, self);
  EXPECT_EQ(*reader.ReadComm(self), stat->comm);
  const auto exe = reader.ReadExe(self);
  ASSERT_TRUE(exe.ok());
  EXPECT_EQ(*exe, std::filesystem::read_symlink("/proc/self/exe").string());
  EXPECT_TRUE(reader.ReadCgroup(self).ok());
  const auto pids = reader.ListPids();
  ASSERT_TRUE(pids.ok());
  EXPECT_NE(std::find(pids->begin(), pids->end(), self), pids->end());
}

TEST(ProcReaderTest, MapsOfThisProcessHoldItsOwnCode) {
  const Pid self{static_cast<uint32_t>(::getpid())};
  const auto maps = ProcReader("/proc").ReadMaps(self);
  ASSERT_TRUE(maps.ok());
  const auto here = reinterpret_cast<uint64_t>(&ParseProcMaps);
  const auto found = std::find_if(maps->begin(), maps->end(), [here](const ProcMapsEntry& entry) {
    return entry.start <= here && here < entry.end;
  });
  ASSERT_NE(found, maps->end());
  EXPECT_EQ(found->file.path, std::filesystem::read_symlink("/proc/self/exe").string());
}

TEST(ProcReaderTest, ProcessThatIsGoneIsNotFound) {
  const ProcReader reader("/proc");
  constexpr Pid kNobody{0x7fffffff};
  EXPECT_TRUE(absl::IsNotFound(reader.ReadStat(kNobody).status()));
  EXPECT_TRUE(absl::IsNotFound(reader.ReadMaps(kNobody).status()));
  EXPECT_TRUE(absl::IsNotFound(reader.ReadExe(kNobody).status()));
}

}  // namespace
}  // namespace firewatch::agent
