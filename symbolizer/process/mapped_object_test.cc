// SPDX-License-Identifier: Apache-2.0
// A made-up /proc: PROC/42/root is a directory, map_files a folder of links.
#include "symbolizer/process/mapped_object.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/status.h"

namespace firewatch::symbolizer {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr MappingHint kHint = {.pid = 42, .parent_pid = 7, .map_start = 0x1000, .map_end = 0x2000};

class MappedObjectTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(proc_ + "/42/root/bin");
    fs::create_directories(proc_ + "/42/map_files");
    fs::create_directories(proc_ + "/7/root/bin");
  }
  void TearDown() override { fs::remove_all(directory_); }

  static std::string MakeDirectory() {
    std::string path = "/tmp/mapped_object_test-XXXXXX";
    return ::mkdtemp(path.data()) == nullptr ? "" : path;
  }
  static void Write(const std::string& path, const std::string& text) {
    std::ofstream(path) << text;
  }
  static FileIdentity IdentityOf(const std::string& path, const std::string& seen_as) {
    struct stat info{};
    EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
    return {.path = seen_as,
            .build_id = {},
            .device_major = ::major(info.st_dev),
            .device_minor = ::minor(info.st_dev),
            .inode = info.st_ino};
  }
  // What the file says, or why it was not opened.
  std::string Open(const FileIdentity& file, int first_place = 0, int* place = nullptr) const {
    auto opened = OpenMappedObject(file, kHint, proc_, first_place);
    if (!opened.ok()) return std::string(base::Message(opened.status()));
    if (place != nullptr) *place = opened->place;
    char text[64] = {};
    const ssize_t size = ::read(opened->fd.get(), text, sizeof(text));
    return std::string(text, static_cast<size_t>(std::max<ssize_t>(size, 0)));
  }

  const std::string directory_ = MakeDirectory();
  const std::string proc_ = directory_ + "/proc";
};

TEST_F(MappedObjectTest, FileIsOpenedInTheRootOfItsProcess) {
  Write(proc_ + "/42/root/bin/prog", "container");
  int place = -1;
  EXPECT_EQ(Open(IdentityOf(proc_ + "/42/root/bin/prog", "/bin/prog"), 0, &place), "container");
  EXPECT_EQ(place, 2);
}

TEST_F(MappedObjectTest, RootOfTheParentServesForAProcessThatIsGone) {
  Write(proc_ + "/7/root/bin/prog", "parent");
  int place = -1;
  EXPECT_EQ(Open(IdentityOf(proc_ + "/7/root/bin/prog", "/bin/prog"), 0, &place), "parent");
  EXPECT_EQ(place, 3);
}

TEST_F(MappedObjectTest, MapFilesComesFirstAndServesDeletedFiles) {
  Write(directory_ + "/moved-away", "deleted");
  fs::create_symlink(directory_ + "/moved-away", proc_ + "/42/map_files/1000-2000");
  int place = -1;
  EXPECT_EQ(Open(IdentityOf(directory_ + "/moved-away", "/bin/prog (deleted)"), 0, &place),
            "deleted");
  EXPECT_EQ(place, 0);
}

TEST_F(MappedObjectTest, ReplacedFileIsRefusedWithTheReason) {
  Write(proc_ + "/42/root/bin/prog", "old");
  const FileIdentity old = IdentityOf(proc_ + "/42/root/bin/prog", "/bin/prog");
  Write(proc_ + "/42/root/bin/new", "new");
  fs::rename(proc_ + "/42/root/bin/new", proc_ + "/42/root/bin/prog");
  EXPECT_EQ(Open(old), "/bin/prog: not the file that was mapped");
}

TEST_F(MappedObjectTest, SameInodeOfAnotherDiskIsAnotherFile) {
  Write(proc_ + "/42/root/bin/prog", "x");
  FileIdentity file = IdentityOf(proc_ + "/42/root/bin/prog", "/bin/prog");
  if (file.device_major == 0) GTEST_SKIP() << "/tmp is on a file system without a device";
  ++file.device_minor;
  EXPECT_EQ(Open(file), "/bin/prog: not the file that was mapped");
  // overlayfs shows an anonymous device on one side: the inode decides.
  file.device_major = 0;
  EXPECT_EQ(Open(file), "x");
}

TEST_F(MappedObjectTest, FifoIsRefusedWithoutWaiting) {
  ASSERT_EQ(::mkfifo((proc_ + "/42/root/bin/prog").c_str(), 0600), 0);
  EXPECT_EQ(Open(IdentityOf(proc_ + "/42/root/bin/prog", "/bin/prog")),
            "/bin/prog: not a regular file");
  EXPECT_EQ(Open({.path = "/bin", .build_id = {}}, 2), "/bin: not a regular file");
}

TEST_F(MappedObjectTest, LinkOfAContainerDoesNotLeadOutOfIt) {
  Write(directory_ + "/secret", "of the host");
  fs::create_symlink(directory_, proc_ + "/42/root/out");
  const FileIdentity file = {.path = "/out/secret", .build_id = {}};
  EXPECT_THAT(Open(file), HasSubstr("No such file"));
  // The same link resolves inside the container's root.
  fs::create_directories(proc_ + "/42/root" + directory_);
  Write(proc_ + "/42/root" + directory_ + "/secret", "of the container");
  EXPECT_EQ(Open(file), "of the container");
}

TEST_F(MappedObjectTest, NextPlaceIsAskedWhenTheFirstWasWrong) {
  Write(proc_ + "/42/root/bin/prog", "first");
  Write(proc_ + "/7/root/bin/prog", "second");
  const FileIdentity by_build_id = {.path = "/bin/prog", .build_id = {.bytes = {1}, .size = 1}};
  int place = 0;
  EXPECT_EQ(Open(by_build_id, 0, &place), "first");
  EXPECT_EQ(Open(by_build_id, place + 1, &place), "second");
}

TEST_F(MappedObjectTest, MissingFileSaysSo) {
  EXPECT_EQ(Open({.path = "/bin/none-such", .build_id = {}, .inode = 5}),
            "open /bin/none-such: No such file or directory");
}

TEST(PseudoFileTest, MemoryIsToldFromFiles) {
  for (const char* path : {"", "//anon", "[heap]", "[stack]", "[vsyscall]", "[anon:x]",
                           "/dev/zero (deleted)", "anon_inode:[perf_event]", "/SYSV00000000"}) {
    EXPECT_NE(WhyNotAFile(path), "") << path;
  }
  for (const char* path :
       {"/usr/bin/x", "/memfd:jit (deleted)", "[vdso]", "/usr/bin/[ (deleted)"}) {
    EXPECT_EQ(WhyNotAFile(path), "") << path;
  }
}

}  // namespace
}  // namespace firewatch::symbolizer
