// SPDX-License-Identifier: Apache-2.0
// UnwindTableOf from the outside: real files, the real helper, the real cache.
#include "symbolizer/unwind_tables.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/metrics.h"
#include "base/status.h"
#include "symbolizer/elf/elf_builder_for_test.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::symbolizer {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using Table = std::shared_ptr<const MappedUnwindTable>;

struct Mapping {
  uint64_t start = 0;
  uint64_t end = 0;
  uint64_t file_offset = 0;
  FileIdentity file;
};

// The executable mapping of this process with `address`.
Mapping MappingOf(uint64_t address) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    Mapping mapping;
    int path_at = 0;
    unsigned long start = 0, end = 0, offset = 0, inode = 0;
    std::sscanf(line.c_str(), "%lx-%lx %*s %lx %x:%x %lu %n", &start, &end, &offset,
                &mapping.file.device_major, &mapping.file.device_minor, &inode, &path_at);
    if (address < start || address >= end) continue;
    mapping.start = start;
    mapping.end = end;
    mapping.file_offset = offset;
    mapping.file.inode = inode;
    mapping.file.path = line.substr(static_cast<size_t>(path_at));
    return mapping;
  }
  ADD_FAILURE() << "no mapping covers the address";
  return {};
}

class UnwindTablesTest : public testing::Test {
 protected:
  void SetUp() override { Restart(); }
  void Restart() {
    symbolizer_.reset();
    options_.cache_directory = directory_ + "/cache";
    auto created = Symbolizer::Create(options_, metrics_);
    ASSERT_TRUE(created.ok()) << base::ToString(created.status());
    symbolizer_ = *std::move(created);
  }
  void TearDown() override {
    symbolizer_.reset();
    fs::remove_all(directory_);
  }
  static std::string MakeDirectory() {
    std::string path = "/tmp/unwind_tables_test-XXXXXX";
    return ::mkdtemp(path.data()) == nullptr ? "" : path;
  }

  absl::StatusOr<Table> Ask(const FileIdentity& file, uint64_t start = 0, uint64_t end = 0) {
    return symbolizer_->UnwindTableOf(symbolizer_->Intern(file), static_cast<uint32_t>(::getpid()),
                                      0, start, end);
  }
  // Asks and polls until there is an answer.
  absl::StatusOr<Table> Get(const FileIdentity& file, uint64_t start = 0, uint64_t end = 0) {
    for (int i = 0; i < 600; ++i) {
      auto table = Ask(file, start, end);
      if (table.ok() || table.status().code() != absl::StatusCode::kUnavailable) return table;
      if (symbolizer_->Poll(100) == 0) return Ask(file, start, end);
    }
    return base::Internal("no answer");
  }
  absl::StatusOr<Table> Get(const std::string& path) {
    return Get(FileIdentity{.path = path, .build_id = {}});
  }
  std::string Write(const std::string& name, const std::string& bytes) const {
    const std::string path = directory_ + "/" + name;
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  double Metric(const std::string& line) const {
    const std::string page = metrics_.Expose();
    const size_t at = page.find("\n" + line + " ");
    return at == std::string::npos ? -1 : std::atof(page.c_str() + at + line.size() + 2);
  }
  std::vector<fs::path> CachedTables() const {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(options_.cache_directory)) {
      if (entry.path().extension() == ".fwunw") found.push_back(entry.path());
    }
    return found;
  }

  const std::string directory_ = MakeDirectory();
  base::MetricsRegistry metrics_;
  SymbolizerOptions options_;
  std::unique_ptr<Symbolizer> symbolizer_;
};

TEST_F(UnwindTablesTest, LibcHasARuleForItsFunctions) {
  const Mapping libc = MappingOf(reinterpret_cast<uint64_t>(&::qsort));
  EXPECT_EQ(Ask(libc.file, libc.start, libc.end).status().code(), absl::StatusCode::kUnavailable);
  const auto table = Get(libc.file, libc.start, libc.end);
  ASSERT_TRUE(table.ok()) << base::ToString(table.status());
  EXPECT_GT((*table)->table.counts().fdes, 1000U);
  EXPECT_EQ((*table)->table.counts().fdes_refused, 0U);
  // A function's first instruction: the CFA is the stack pointer before the call.
  const uint64_t function = reinterpret_cast<uint64_t>(&::qsort);
  const auto found = (*table)->table.Find(function - libc.start + libc.file_offset);
  EXPECT_EQ(found.rule.cfa, FW_CFA_OFFSET);
  EXPECT_EQ(found.rule.base, FW_REGISTER_RSP);
  EXPECT_EQ(found.rule.cfa_offset, 8);
}

TEST_F(UnwindTablesTest, OneTableIsSharedAndKeptOnDisk) {
  const Mapping libc = MappingOf(reinterpret_cast<uint64_t>(&::qsort));
  const auto first = Get(libc.file, libc.start, libc.end);
  ASSERT_TRUE(first.ok()) << base::ToString(first.status());
  FileIdentity other = libc.file;
  other.inode_generation = 77;  // another name of the same content
  const auto second = Get(other, libc.start, libc.end);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(first->get(), second->get());
  EXPECT_EQ(CachedTables().size(), 1U);
  EXPECT_EQ(Metric("firewatch_unwind_tables_total{result=\"built\"}"), 1);
  Restart();
  ASSERT_TRUE(Get(libc.file, libc.start, libc.end).ok());
  EXPECT_EQ(Metric("firewatch_unwind_tables_total{result=\"built\"}"), 1);
  EXPECT_GE(Metric("firewatch_unwind_tables_total{result=\"cached\"}"), 1);
}

TEST_F(UnwindTablesTest, DamagedFileInTheCacheIsBuiltAgain) {
  const Mapping libc = MappingOf(reinterpret_cast<uint64_t>(&::qsort));
  ASSERT_TRUE(Get(libc.file, libc.start, libc.end).ok());
  const auto cached = CachedTables();
  ASSERT_EQ(cached.size(), 1U);
  {
    std::fstream file(cached[0], std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(4000);
    file.put('\x5a').put('\x5a');
  }
  Restart();
  const auto table = Get(libc.file, libc.start, libc.end);
  ASSERT_TRUE(table.ok()) << base::ToString(table.status());
  EXPECT_EQ(Metric("firewatch_unwind_tables_total{result=\"built\"}"), 2);
}

TEST_F(UnwindTablesTest, NamesAreReadBesideTheTable) {
  const Mapping libc = MappingOf(reinterpret_cast<uint64_t>(&::qsort));
  const FileId file = symbolizer_->Intern(libc.file);
  symbolizer_->Request(file, static_cast<uint32_t>(::getpid()), 0, libc.start, libc.end);
  ASSERT_TRUE(Get(libc.file, libc.start, libc.end).ok());
  while (symbolizer_->Poll(100) > 0) {
  }
  EXPECT_EQ(symbolizer_->Info(file).state, FileState::kReady);
}

TEST_F(UnwindTablesTest, VdsoHasOne) {
  const auto table = Get("[vdso]");
  ASSERT_TRUE(table.ok()) << base::ToString(table.status());
  EXPECT_GT((*table)->table.counts().fdes, 3U);
  EXPECT_EQ((*table)->table.counts().rows_no_rule, 0U);
}

TEST_F(UnwindTablesTest, MemfdHasOneThroughItsMapping) {
  const int fd = ::memfd_create("code", MFD_CLOEXEC);
  std::ifstream self("/proc/self/exe", std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(self)), {});
  ASSERT_EQ(::write(fd, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  void* memory = ::mmap(nullptr, bytes.size(), PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
  ASSERT_NE(memory, MAP_FAILED);
  const Mapping mapping = MappingOf(reinterpret_cast<uint64_t>(memory));
  EXPECT_THAT(mapping.file.path, HasSubstr("memfd:code"));
  const auto table = Get(mapping.file, mapping.start, mapping.end);
  if (!table.ok() && ::geteuid() != 0) GTEST_SKIP() << "map_files needs a capability";
  EXPECT_TRUE(table.ok()) << base::ToString(table.status());
  ::munmap(memory, bytes.size());
  ::close(fd);
}

TEST_F(UnwindTablesTest, FileWithoutCfiSaysSoForGood) {
  ElfBuilder builder;
  builder.Load(0x200, 0x1200, 0x100, 0x100).BuildIdNote("no cfi here");
  builder.Text(0x1200, 0x200, 0x100);
  const std::string path = Write("bare", builder.Build(0x400));
  const auto table = Get(path);
  ASSERT_FALSE(table.ok());
  EXPECT_THAT(std::string(base::Message(table.status())), HasSubstr(".eh_frame"));
  EXPECT_NE(table.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Ask({.path = path, .build_id = {}}).status(), table.status());
}

TEST_F(UnwindTablesTest, MemoryThatIsNoFileHasNone) {
  for (const char* path : {"//anon", "[stack]", "/SYSV00000000 (deleted)"}) {
    const auto table = Ask({.path = path, .build_id = {}});
    EXPECT_EQ(table.status().code(), absl::StatusCode::kInvalidArgument) << path;
  }
}

TEST_F(UnwindTablesTest, FileThatIsGoneMayComeBack) {
  const std::string path = directory_ + "/later";
  EXPECT_EQ(Ask({.path = path, .build_id = {}}).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(UnwindTablesTest, AnotherProcessMayShowWhatTheFirstCouldNot) {
  // Of a container whose first process was gone before it could be looked at.
  options_.proc_root = directory_ + "/proc";
  Restart();
  const std::string root = options_.proc_root + "/20/root";
  fs::create_directories(root + "/only-there");
  fs::copy_file("/proc/self/exe", root + "/only-there/program");
  const FileId file =
      symbolizer_->Intern(FileIdentity{.path = "/only-there/program", .build_id = {}});
  const auto ask = [&](uint32_t pid) { return symbolizer_->UnwindTableOf(file, pid, 0, 0, 0); };
  EXPECT_EQ(ask(10).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ask(10).status().code(), absl::StatusCode::kUnavailable);
  auto table = ask(20);
  for (int i = 0; i < 600 && !table.ok(); ++i) {
    // Nothing is outstanding when the other process was not even tried.
    const size_t outstanding = symbolizer_->Poll(100);
    table = ask(10);
    if (outstanding == 0 && !table.ok()) break;
  }
  EXPECT_TRUE(table.ok()) << base::ToString(table.status());
}

// The helper that this process has started; 0 when there is none.
pid_t HelperOfThisProcess() {
  std::ifstream children("/proc/self/task/" + std::to_string(::getpid()) + "/children");
  pid_t child = 0;
  children >> child;
  return child;
}

TEST_F(UnwindTablesTest, AHelperThatWasKilledOnceIsNoReasonToRefuseTheFile) {
  const Mapping self = MappingOf(reinterpret_cast<uint64_t>(&HelperOfThisProcess));
  ASSERT_TRUE(Get("[vdso]").ok());
  const pid_t helper = HelperOfThisProcess();
  ASSERT_GT(helper, 0);
  // It takes the file's job, and is killed on it.
  ::kill(helper, SIGSTOP);
  EXPECT_TRUE(absl::IsUnavailable(Ask(self.file, self.start, self.end).status()));
  EXPECT_EQ(symbolizer_->Poll(100), 1u);
  ::kill(helper, SIGKILL);
  absl::StatusOr<Table> table = base::Unavailable("");
  for (int i = 0; i < 600 && absl::IsUnavailable(table.status()); ++i) {
    if (symbolizer_->Poll(100) == 0) ::usleep(100'000);  // it is tried again after two seconds
    table = Ask(self.file, self.start, self.end);
  }
  EXPECT_TRUE(table.ok()) << base::ToString(table.status());
}

TEST_F(UnwindTablesTest, GarbageIsRefused) {
  const auto table = Get(Write("garbage", "this is no ELF file, by far"));
  EXPECT_EQ(table.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace firewatch::symbolizer
