// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/symbolizer.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <link.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/metrics.h"
#include "base/status.h"

// Outside of any namespace and exported in no table but .symtab.
extern "C" __attribute__((noinline)) int FirewatchTestCFunction(int x) {
  asm volatile("");
  return x + 1;
}

namespace firewatch::symbolizer {

__attribute__((noinline)) int TestCppFunction(int x, const char* text) {
  asm volatile("");
  return x + text[0];
}

namespace {

struct TestMapping {
  uint64_t start = 0;
  uint64_t end = 0;
  uint64_t file_offset = 0;
  FileIdentity file;
};

// The line of /proc/self/maps that covers the address.
TestMapping MappingOf(const void* address) {
  const auto wanted = reinterpret_cast<uint64_t>(address);
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    TestMapping mapping;
    unsigned long start = 0, end = 0, offset = 0, inode = 0;
    unsigned device_major = 0, device_minor = 0;
    int path_at = 0;
    std::sscanf(line.c_str(), "%lx-%lx %*s %lx %x:%x %lu %n", &start, &end, &offset, &device_major,
                &device_minor, &inode, &path_at);
    if (wanted < start || wanted >= end) continue;
    mapping.start = start;
    mapping.end = end;
    mapping.file_offset = offset;
    mapping.file.path = line.substr(static_cast<size_t>(path_at));
    mapping.file.device_major = device_major;
    mapping.file.device_minor = device_minor;
    mapping.file.inode = inode;
    return mapping;
  }
  ADD_FAILURE() << "no mapping covers the address";
  return {};
}

uint64_t FileOffsetIn(const TestMapping& mapping, const void* address) {
  return reinterpret_cast<uint64_t>(address) - mapping.start + mapping.file_offset;
}

class SymbolizerTest : public testing::Test {
 protected:
  void SetUp() override { Restart(); }

  void Restart() {
    symbolizer_.reset();
    options_.cache_directory = cache_;
    auto created = Symbolizer::Create(options_, metrics_);
    ASSERT_TRUE(created.ok()) << base::ToString(created.status());
    symbolizer_ = *std::move(created);
  }

  void TearDown() override {
    symbolizer_.reset();
    std::filesystem::remove_all(directory_);
  }

  static std::string MakeDirectory() {
    std::string path = "/tmp/symbolizer_test-XXXXXX";
    return ::mkdtemp(path.data()) == nullptr ? "" : path;
  }

  FileId RequestMapping(const TestMapping& mapping) {
    const FileId id = symbolizer_->Intern(mapping.file);
    symbolizer_->Request(id, static_cast<uint32_t>(::getpid()), 0, mapping.start, mapping.end);
    return id;
  }

  // Polls until nothing is outstanding.
  void Wait() {
    for (int i = 0; i < 600 && symbolizer_->Poll(100) > 0; ++i) {
    }
    ASSERT_EQ(symbolizer_->Poll(0), 0U);
  }

  const std::string directory_ = MakeDirectory();
  const std::string cache_ = directory_ + "/cache";
  base::MetricsRegistry metrics_;
  SymbolizerOptions options_;
  std::unique_ptr<Symbolizer> symbolizer_;
};

TEST_F(SymbolizerTest, NamesFunctionsOfThisBinary) {
  const auto* c_function = reinterpret_cast<const void*>(&FirewatchTestCFunction);
  const auto* cpp_function = reinterpret_cast<const void*>(&TestCppFunction);
  const TestMapping mapping = MappingOf(c_function);
  const FileId file = RequestMapping(mapping);
  EXPECT_EQ(symbolizer_->Info(file).state, FileState::kPending);
  Wait();
  const FileInfo info = symbolizer_->Info(file);
  ASSERT_EQ(info.state, FileState::kReady) << info.reason;
  EXPECT_EQ(info.size_bytes, std::filesystem::file_size("/proc/self/exe"));
  EXPECT_EQ(info.build_id.size(), 40U);  // --build-id=sha1

  Symbol symbol;
  ASSERT_TRUE(symbolizer_->Lookup(file, FileOffsetIn(mapping, c_function), &symbol));
  EXPECT_EQ(symbol.name, "FirewatchTestCFunction");
  EXPECT_EQ(symbol.system_name, "FirewatchTestCFunction");
  ASSERT_TRUE(symbolizer_->Lookup(file, FileOffsetIn(mapping, cpp_function) + 1, &symbol));
  EXPECT_EQ(symbol.name, "firewatch::symbolizer::TestCppFunction(int, char const*)");
  EXPECT_EQ(symbol.system_name, "_ZN9firewatch10symbolizer15TestCppFunctionEiPKc");
}

}  // namespace
}  // namespace firewatch::symbolizer
