// SPDX-License-Identifier: Apache-2.0
#include "base/mapped_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <fstream>

#include "base/status.h"

namespace firewatch::base {
namespace {

TEST(MappedFileTest, ShowsTheBytesAndSurvivesAMove) {
  const std::string path = testing::TempDir() + "/mapped_file_test";
  std::ofstream(path) << "hello";
  auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok()) << ToString(file.status());
  MappedFile moved = std::move(*file);
  ASSERT_EQ(moved.bytes().size(), 5u);
  EXPECT_EQ(std::memcmp(moved.bytes().data(), "hello", 5), 0);
  ::unlink(path.c_str());
}

TEST(MappedFileTest, AFifoIsRefusedWithoutHanging) {
  const std::string path = testing::TempDir() + "/mapped_file_fifo";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_EQ(MappedFile::Open(path).status().code(), absl::StatusCode::kInvalidArgument);
  ::unlink(path.c_str());
}

TEST(MappedFileTest, MissingFileSaysWhichAndWhy) {
  const auto file = MappedFile::Open("/no/such/file");
  EXPECT_EQ(file.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Message(file.status()), "open /no/such/file: No such file or directory");
}

}  // namespace
}  // namespace firewatch::base
