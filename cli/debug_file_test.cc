// SPDX-License-Identifier: Apache-2.0
// This test binary is the file: it has code, symbols, DWARF and a build id.
#include "cli/debug_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <fstream>
#include <sstream>

#include "base/status.h"

namespace firewatch::cli {
namespace {

using ::testing::HasSubstr;

std::string ReadAll(const DebugFile& file, size_t capacity, uint64_t* sent) {
  symbolizer::CompressedFile reader(file.fd.get(), file.blank);
  std::string frame;
  std::vector<char> buffer(capacity);
  while (true) {
    const auto bytes = reader.Read(buffer.data(), buffer.size());
    EXPECT_TRUE(bytes.ok());
    if (!bytes.ok() || *bytes == 0) break;
    frame.append(buffer.data(), *bytes);
  }
  *sent = reader.sent_bytes();
  EXPECT_EQ(*sent, frame.size());
  std::string all(file.bytes + 1, '\0');
  const size_t size = ::ZSTD_decompress(all.data(), all.size(), frame.data(), frame.size());
  EXPECT_FALSE(::ZSTD_isError(size)) << ::ZSTD_getErrorName(size);
  all.resize(::ZSTD_isError(size) ? 0 : size);
  return all;
}

TEST(DebugFileTest, AnExecutableIsSentWithoutItsCode) {
  const auto file = OpenDebugFileAt("/proc/self/exe");
  ASSERT_TRUE(file.ok()) << base::ToString(file.status());
  EXPECT_TRUE(file->has_code && file->has_symbols && file->has_lines);
  EXPECT_EQ(file->id.size, 20);
  ASSERT_FALSE(file->blank.empty());
  uint64_t sent = 0;
  const std::string arrived = ReadAll(*file, 10'007, &sent);
  std::stringstream original;
  original << std::ifstream("/proc/self/exe").rdbuf();
  ASSERT_EQ(arrived.size(), original.str().size());
  const std::string text = original.str();
  const auto is_blank = [&](size_t at) {
    for (const auto& [begin, end] : file->blank) {
      if (at >= begin && at < end) return true;
    }
    return false;
  };
  size_t wrong = 0;

  for (size_t at = 0; at < arrived.size(); ++at) {
    const bool blank = is_blank(at);

    wrong += static_cast<size_t>(arrived[at] != (blank ? '\0' : text[at]));
    if (at > 200'000) break;  // a sanitized loop over all of it takes its time
  }
  EXPECT_EQ(wrong, 0u);
  const auto& [begin, end] = file->blank.front();
  EXPECT_EQ(arrived.substr(begin, end - begin).find_first_not_of('\0'), std::string::npos);
  EXPECT_LT(sent, file->bytes / 2);
}

TEST(DebugFileTest, WhatCannotBeUsedIsRefusedWithItsReason) {
  EXPECT_EQ(OpenDebugFileAt("/nonexistent").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(base::Message(OpenDebugFileAt("/proc").status())), HasSubstr("regular"));
  EXPECT_THAT(base::ToString(OpenDebugFileAt("/etc/passwd").status()), HasSubstr("ELF"));
  const std::string fifo = ::testing::TempDir() + "/firewatch-fifo";
  ::unlink(fifo.c_str());
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_THAT(base::ToString(OpenDebugFileAt(fifo).status()), HasSubstr("regular"));
  ::unlink(fifo.c_str());
}

TEST(DebugFileTest, AMissingDebugFileIsNamedWithEveryPlace) {
  auto file = OpenDebugFileAt("/proc/self/exe");
  ASSERT_TRUE(file.ok());
  const auto found = FindSeparateDebugFile(*file);
  ASSERT_EQ(found.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(base::Message(found.status())),
              HasSubstr("/usr/lib/debug/.build-id/" + file->id.ToHex().substr(0, 2)));
}

}  // namespace
}  // namespace firewatch::cli
