// SPDX-License-Identifier: Apache-2.0
// A made-up /proc: PROC/42/root is a directory that stands for a container's root.
#include "symbolizer/process/debug_files.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <string>

#include "base/status.h"
#include "symbolizer/process/open_below.h"
#include "symbolizer/testing/tools_for_test.h"

namespace firewatch::symbolizer {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(DebugFileCandidatesTest, DebugFileByIdThenByLink) {
  EXPECT_THAT(DebugFileCandidates({.kind = DebugFileKind::kDebug,
                                   .path = "/usr/bin/x",
                                   .id = BuildId::FromHex("abcdef12"),
                                   .name = "y.debug"}),
              ElementsAre("/usr/lib/debug/.build-id/ab/cdef12.debug", "/usr/bin/y.debug",
                          "/usr/bin/.debug/y.debug", "/usr/lib/debug/usr/bin/y.debug",
                          "/usr/lib/debug/bin/y.debug"));
  EXPECT_THAT(DebugFileCandidates({.kind = DebugFileKind::kDebug, .path = "/opt/x (deleted)"}),
              ElementsAre("/opt/x.debug", "/opt/.debug/x.debug", "/usr/lib/debug/opt/x.debug"));
}

TEST(DebugFileCandidatesTest, NamesThatAreNoFileNamesGiveNone) {
  for (const char* name : {"../../etc/shadow", "..", "a/b"}) {
    EXPECT_THAT(
        DebugFileCandidates({.kind = DebugFileKind::kDebug, .path = "/opt/x", .name = name}),
        IsEmpty())
        << name;
  }
  EXPECT_THAT(DebugFileCandidates({.kind = DebugFileKind::kDebug, .path = "relative"}), IsEmpty());
  EXPECT_THAT(DebugFileCandidates({.kind = DebugFileKind::kDebug, .path = "//anon (deleted)"}),
              ElementsAre("//anon.debug", "//.debug/anon.debug", "/usr/lib/debug//anon.debug"));
  EXPECT_THAT(DebugFileCandidates(
                  {.kind = DebugFileKind::kAlt, .path = "/a/b", .name = std::string("x\0y", 3)}),
              IsEmpty());
  EXPECT_THAT(DebugFileCandidates(
                  {.kind = DebugFileKind::kAlt, .path = "/a/b", .name = std::string(5000, 'x')}),
              IsEmpty());
}

TEST(DebugFileCandidatesTest, AltFileDwpAndDwo) {
  EXPECT_THAT(DebugFileCandidates({.kind = DebugFileKind::kAlt,
                                   .path = "/usr/lib/debug/.build-id/ab/cd.debug",
                                   .id = BuildId::FromHex("0102ff"),
                                   .name = "../../.dwz/x.debug"}),
              ElementsAre("/usr/lib/debug/.build-id/ab/../../.dwz/x.debug",
                          "/usr/lib/debug/.dwz/x.debug", "/usr/lib/debug/.build-id/01/02ff.debug"));
  EXPECT_THAT(
      DebugFileCandidates(
          {.kind = DebugFileKind::kDwp, .path = "/opt/x", .debug_path = "/opt/.debug/x.debug"}),
      ElementsAre("/opt/x.dwp", "/opt/.debug/x.debug.dwp", "/opt/.debug/x.dwp"));
  EXPECT_THAT(DebugFileCandidates({.kind = DebugFileKind::kDwo,
                                   .path = "/opt/x",
                                   .name = "obj/a.dwo",
                                   .compilation_directory = "/build"}),
              ElementsAre("/build/obj/a.dwo", "/opt/obj/a.dwo", "/opt/a.dwo"));
}

class DebugFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_.Write("42/root/opt/x", "the program");
    fs::create_directories(folder_.At("42/root/usr/lib/debug/.build-id/ab"));
    query_.path = "/opt/x";
    query_.id = BuildId::FromHex("abcd");
    query_.name = "x.debug";
    roots_.pid = 42;
    roots_.proc_root = folder_.path();
    roots_.own_root = false;
  }
  std::string Open(int first_place = 0, int not_fd = -1) {
    auto opened = OpenDebugFile(query_, roots_, not_fd, first_place);
    if (!opened.ok()) return std::string(base::Message(opened.status()));
    place_ = opened->place;
    char text[100] = {};
    const ssize_t size = ::read(opened->fd.get(), text, sizeof(text));
    return opened->path + ": " + std::string(text, static_cast<size_t>(std::max<ssize_t>(size, 0)));
  }
  ToolFolder folder_;
  DebugFileQuery query_;
  DebugFileRoots roots_;
  int place_ = -1;
};

TEST_F(DebugFilesTest, EachCandidateInItsTurn) {
  EXPECT_EQ(Open(), "no debug file");
  folder_.Write("42/root/opt/.debug/x.debug", "second");
  folder_.Write("42/root/usr/lib/debug/.build-id/ab/cd.debug", "first");
  EXPECT_EQ(Open(), "/usr/lib/debug/.build-id/ab/cd.debug: first");
  EXPECT_EQ(Open(place_ + 1), "/opt/.debug/x.debug: second");
  EXPECT_EQ(Open(place_ + 1), "no debug file");
}

TEST_F(DebugFilesTest, TheProcessesOwnRootComesBeforeOurs) {
  // The decoy stands in our own root, at the very path that the container has too.
  const ToolFolder ours;
  ours.Write("x.debug", "of the host");
  folder_.Write("42/root" + ours.At("x.debug"), "of the container");
  query_.path = ours.At("x");
  query_.id = {};
  roots_.own_root = true;
  EXPECT_THAT(Open(), HasSubstr("of the container"));
  EXPECT_THAT(Open(place_ + 1), HasSubstr("of the host"));
}

TEST_F(DebugFilesTest, ParentsRootWhenTheProcessIsGone) {
  folder_.Write("7/root/opt/x.debug", "seen by the parent");
  roots_.parent_pid = 7;
  EXPECT_EQ(Open(), "/opt/x.debug: seen by the parent");
}

TEST_F(DebugFilesTest, LinksNeverLeadOutOfTheRoot) {
  folder_.Write("secret", "of the host");
  folder_.Write("42/root/secret", "inside");
  const std::string link = folder_.At("42/root/usr/lib/debug/.build-id/ab/cd.debug");
  fs::create_symlink("/secret", link);
  EXPECT_THAT(Open(), HasSubstr(": inside"));
  fs::remove(link);
  fs::create_symlink("../../../../../../../../../../secret", link);
  EXPECT_THAT(Open(), HasSubstr(": inside"));
  fs::remove(link);
  fs::create_symlink(folder_.At("secret"), link);
  EXPECT_EQ(Open(), "no debug file");
}

TEST_F(DebugFilesTest, StepByStepResolvesAsTheKernelDoes) {
  const std::string root = folder_.At("42/root");
  folder_.Write("secret", "of the host");
  folder_.Write("42/root/secret", "inside");
  fs::create_symlink("/secret", folder_.At("42/root/absolute"));
  fs::create_symlink("../../../../secret", folder_.At("42/root/opt/up"));
  fs::create_symlink("usr/lib", folder_.At("42/root/lib"));
  fs::create_symlink("loop", folder_.At("42/root/loop"));
  folder_.Write("42/root/usr/lib/debug/a", "a");
  for (const char* path : {"/secret", "/absolute", "/opt/up", "/lib/debug/a", "/lib/../lib/debug/a",
                           "/loop", "/nothing", "/opt/x/y", "/lib/./debug//a", "/../../secret"}) {
    const base::UniqueFd kernel = OpenPathBelow(root, path);
    const base::UniqueFd step = OpenPathBelowByStep(root, path);
    ASSERT_EQ(kernel.valid(), step.valid()) << path;
    if (!kernel.valid()) continue;
    struct stat a{}, b{};
    ASSERT_EQ(::fstat(kernel.get(), &a), 0);
    ASSERT_EQ(::fstat(step.get(), &b), 0);
    EXPECT_EQ(a.st_ino, b.st_ino) << path;
  }
}

TEST_F(DebugFilesTest, FifoIsPassedOverWithoutWaiting) {
  ASSERT_EQ(::mkfifo(folder_.At("42/root/usr/lib/debug/.build-id/ab/cd.debug").c_str(), 0600), 0);
  const auto before = std::chrono::steady_clock::now();
  EXPECT_THAT(Open(), HasSubstr("not a regular file"));
  folder_.Write("42/root/opt/x.debug", "the next one");
  EXPECT_EQ(Open(), "/opt/x.debug: the next one");
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(5));
}

TEST_F(DebugFilesTest, FoldersAndDevicesAreNoDebugFiles) {
  fs::create_directories(folder_.At("42/root/opt/x.debug"));
  EXPECT_THAT(Open(), HasSubstr("not a regular file"));
}

TEST_F(DebugFilesTest, TheFileItselfIsNotItsDebugFile) {
  query_.name = "x";
  const base::UniqueFd self = folder_.Open("42/root/opt/x");
  EXPECT_EQ(Open(0, self.get()), "no debug file");
  folder_.Write("42/root/opt/.debug/x", "another");
  EXPECT_EQ(Open(0, self.get()), "/opt/.debug/x: another");
}

}  // namespace
}  // namespace firewatch::symbolizer
