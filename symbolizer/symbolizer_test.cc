// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/symbolizer.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/metrics.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "symbolizer/elf/elf_builder_for_test.h"
#include "symbolizer/process/mapped_object.h"

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

namespace fs = std::filesystem;
using testing::AnyOf;
using testing::HasSubstr;
using testing::StartsWith;

// The line of /proc/PID/maps that covers the address.
TestMapping MappingOf(uint64_t wanted, const std::string& pid = "self") {
  std::ifstream maps("/proc/" + pid + "/maps");
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

uint64_t FileOffsetIn(const TestMapping& mapping, uint64_t address) {
  return address - mapping.start + mapping.file_offset;
}

template <typename F>
uint64_t AddressOf(F* function) {
  return reinterpret_cast<uint64_t>(function);
}

// A complete ELF file with one function "named" at file offset 0x200.
std::string SmallElf(std::string_view build_id, std::string_view name = "named") {
  ElfBuilder builder;
  builder.Load(0x200, 0x1200, 0x100, 0x100).BuildIdNote(build_id);
  builder.Text(0x1200, 0x200, 0x100);
  builder.Symbol(name, 0x1200, 0x10, 1);
  return builder.Build(0x400);
}

// Doubles with every level: nobody can print it, and the demangler tries.
std::string ExplosiveName() {
  static constexpr char kDigits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  const auto substitution = [](int number) {
    if (number == 0) return std::string("S_");
    std::string digits;
    for (int left = number - 1; digits.empty() || left > 0; left /= 36) {
      digits.insert(digits.begin(), kDigits[left % 36]);
    }
    return "S" + digits + "_";
  };
  std::string name = "_Z1f1AIiE";
  for (int level = 1; level < 40; ++level) {
    const std::string before = substitution(2 * level - 1);
    name += "1" + std::string(1, static_cast<char>('B' + level % 20)) + "I" + before + before + "E";
  }
  return name;
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

  FileId RequestMapping(const TestMapping& mapping, uint32_t pid = 0) {
    const FileId id = symbolizer_->Intern(mapping.file);
    symbolizer_->Request(id, pid == 0 ? static_cast<uint32_t>(::getpid()) : pid, 0, mapping.start,
                         mapping.end);
    return id;
  }

  std::string Write(const std::string& name, const std::string& bytes) const {
    const std::string path = directory_ + "/" + name;
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  // Requests a file by path alone and waits for it.
  FileId Settle(const FileIdentity& identity) {
    const FileId id = symbolizer_->Intern(identity);
    symbolizer_->Request(id, static_cast<uint32_t>(::getpid()), 0, 0, 0);
    Wait();
    return id;
  }
  FileId Settle(const std::string& path) {
    return Settle(FileIdentity{.path = path, .build_id = {}});
  }
  std::string NameAt(FileId file, uint64_t offset) {
    std::vector<SymbolFrame> frames;
    return symbolizer_->Lookup(file, offset, &frames) == NameReason::kNone
               ? std::string(frames[0].name)
               : "-";
  }
  double Metric(const std::string& line) const {
    const std::string page = metrics_.Expose();
    const size_t at = page.find("\n" + line + " ");
    return at == std::string::npos ? -1 : std::atof(page.c_str() + at + line.size() + 2);
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
  const uint64_t c_function = AddressOf(&FirewatchTestCFunction);
  const uint64_t cpp_function = AddressOf(&TestCppFunction);
  const TestMapping mapping = MappingOf(c_function);
  const FileId file = RequestMapping(mapping);
  EXPECT_EQ(symbolizer_->Info(file).state, FileState::kPending);
  std::vector<SymbolFrame> frames;
  EXPECT_EQ(symbolizer_->Lookup(file, FileOffsetIn(mapping, c_function), &frames),
            NameReason::kPending);
  Wait();
  const FileInfo info = symbolizer_->Info(file);
  ASSERT_EQ(info.state, FileState::kReady) << info.reason;
  EXPECT_EQ(info.size_bytes, fs::file_size("/proc/self/exe"));
  EXPECT_EQ(info.build_id.size(), 40U);  // --build-id=sha1

  ASSERT_EQ(symbolizer_->Lookup(file, FileOffsetIn(mapping, c_function), &frames),
            NameReason::kNone);
  EXPECT_EQ(frames.back().name, "FirewatchTestCFunction");
  EXPECT_EQ(frames.back().system_name, "FirewatchTestCFunction");
  ASSERT_EQ(symbolizer_->Lookup(file, FileOffsetIn(mapping, cpp_function) + 1, &frames),
            NameReason::kNone);
  EXPECT_EQ(frames.back().name, "firewatch::symbolizer::TestCppFunction(int, char const*)");
  EXPECT_EQ(frames.back().system_name, "_ZN9firewatch10symbolizer15TestCppFunctionEiPKc");
  EXPECT_GT(symbolizer_->MappedBytes(), 0U);
  EXPECT_EQ(Metric("firewatch_symbol_lookups_total{space=\"user\",result=\"hit\"}"), 2);
}

TEST_F(SymbolizerTest, FilesThatNobodyKeepsAreForgottenAndTheirIdsComeAgain) {
  const std::string kept_path = Write("kept", SmallElf("kept-build-id-000001"));
  const FileId kept = Settle(kept_path);
  const FileId left = Settle(Write("left", SmallElf("left-build-id-000001", "old")));
  EXPECT_EQ(NameAt(left, 0x200), "old");
  const auto table = symbolizer_->UnwindTableOf(left, static_cast<uint32_t>(::getpid()), 0, 0, 0);
  EXPECT_TRUE(absl::IsUnavailable(table.status()));
  FileSet set;
  set.Add(kept);
  EXPECT_TRUE(symbolizer_->ForgetUnused(set).empty()) << "its table is being built";
  Wait();
  const uint64_t mapped = symbolizer_->MappedBytes();
  EXPECT_TRUE(symbolizer_->ForgetUnused(set).empty()) << "unused for the first time";
  const std::vector<FileId> forgotten = symbolizer_->ForgetUnused(set);
  ASSERT_EQ(forgotten, std::vector<FileId>{left});
  EXPECT_LT(symbolizer_->MappedBytes(), mapped);
  EXPECT_EQ(Metric("firewatch_symbol_files_kept"), 1);

  const std::string other_path = Write("other", SmallElf("other-build-id-00001", "new"));
  const FileId at_once = Settle(other_path);
  EXPECT_NE(at_once, left) << "a sample that was on its way would get its names";
  set.Add(at_once);
  EXPECT_TRUE(symbolizer_->ForgetUnused(set).empty());
  const FileId again = Settle(Write("third", SmallElf("third-build-id-00001", "newest")));
  EXPECT_EQ(again, left);
  EXPECT_EQ(NameAt(again, 0x200), "newest");
  EXPECT_EQ(symbolizer_->Intern({.path = directory_ + "/third"}), left);
  EXPECT_EQ(NameAt(kept, 0x200), "named");
  EXPECT_EQ(NameAt(at_once, 0x200), "new");

  // The old one comes back: from the cache.
  const FileId back = Settle(directory_ + "/left");
  EXPECT_EQ(NameAt(back, 0x200), "old");
}

TEST_F(SymbolizerTest, AFileUsedNowAndThenStays) {
  const FileId file = Settle(Write("file", SmallElf("file-build-id-000001")));
  FileSet with;
  with.Add(file);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(symbolizer_->ForgetUnused(FileSet()).empty());
    EXPECT_TRUE(symbolizer_->ForgetUnused(with).empty());
  }
  EXPECT_EQ(NameAt(file, 0x200), "named");
}

// A build machine: a new program every moment, forever.
TEST_F(SymbolizerTest, AStreamOfNewFilesTakesABoundedNumberOfIds) {
  uint32_t largest = 0;
  for (int round = 0; round < 50; ++round) {
    for (int i = 0; i < 100; ++i) {
      const FileId id = symbolizer_->Intern({.path = fmt::format("/no/{}/{}", round, i)});
      symbolizer_->Request(id, static_cast<uint32_t>(::getpid()), 0, 0, 0);
      largest = std::max(largest, static_cast<uint32_t>(id));
    }
    symbolizer_->ForgetUnused(FileSet());
  }
  EXPECT_LT(largest, 400u);
}

// The C library is stripped to .dynsym: dladdr is the oracle for what it exports.
TEST_F(SymbolizerTest, NamesExportedFunctionsOfTheCLibrary) {
  Dl_info known{};
  void* libc = ::dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
  ASSERT_NE(libc, nullptr);
  void* address = ::dlsym(libc, "tcsetattr");
  ASSERT_NE(::dladdr(address, &known), 0);
  const TestMapping mapping = MappingOf(reinterpret_cast<uint64_t>(address));
  const FileId file = RequestMapping(mapping);
  Wait();
  EXPECT_EQ(NameAt(file, FileOffsetIn(mapping, reinterpret_cast<uint64_t>(address))),
            known.dli_sname);
  ::dlclose(libc);
}

// Each fixture is a live program: what it prints as its functions' addresses is the truth.
class FixtureTest : public SymbolizerTest, public testing::WithParamInterface<const char*> {};

TEST_P(FixtureTest, FunctionsOfALiveProgramAreNamed) {
  const std::string path = std::string(FIREWATCH_FIXTURES) + "/" + GetParam();
  if (!fs::exists(path)) GTEST_SKIP() << path << " was not built: its linker is missing";
  int to_child[2], from_child[2];
  ASSERT_EQ(::pipe2(to_child, O_CLOEXEC), 0);
  ASSERT_EQ(::pipe2(from_child, O_CLOEXEC), 0);
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::dup2(to_child[0], 0);
    ::dup2(from_child[1], 1);
    ::execl(path.c_str(), path.c_str(), nullptr);
    ::_exit(127);
  }
  ::close(to_child[0]);
  ::close(from_child[1]);
  FILE* lines = ::fdopen(from_child[0], "r");
  char name[64];
  unsigned long address = 0;
  int functions = 0;
  while (functions < 4 && std::fscanf(lines, "%63s %lx", name, &address) == 2) {
    ++functions;
    const TestMapping mapping = MappingOf(address, std::to_string(pid));
    const FileId file = RequestMapping(mapping, static_cast<uint32_t>(pid));
    Wait();
    ASSERT_EQ(symbolizer_->Info(file).state, FileState::kReady) << symbolizer_->Info(file).reason;
    EXPECT_EQ(NameAt(file, FileOffsetIn(mapping, address)), name);
  }
  EXPECT_EQ(functions, 4);
  std::fclose(lines);
  ::close(to_child[1]);
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
}

INSTANTIATE_TEST_SUITE_P(Linkers, FixtureTest,
                         testing::Values("lld_exec_far", "lld_pie", "lld_pie_far", "gold_pie",
                                         "gold_exec_far", "bfd_pie"));

TEST_F(SymbolizerTest, VdsoIsNamed) {
  void* vdso = ::dlopen("linux-vdso.so.1", RTLD_NOW | RTLD_NOLOAD);
  if (vdso == nullptr) GTEST_SKIP() << "no vdso";
  const auto address = reinterpret_cast<uint64_t>(::dlsym(vdso, "__vdso_clock_gettime"));
  ASSERT_NE(address, 0U);
  const TestMapping mapping = MappingOf(address);
  ASSERT_EQ(mapping.file.path, "[vdso]");
  const FileId file = RequestMapping(mapping);
  Wait();
  ASSERT_EQ(symbolizer_->Info(file).state, FileState::kReady) << symbolizer_->Info(file).reason;
  EXPECT_THAT(NameAt(file, address - mapping.start), HasSubstr("clock_gettime"));
  ::dlclose(vdso);
}

TEST_F(SymbolizerTest, SameIdentityIsTheSameFile) {
  const FileId a = symbolizer_->Intern({.path = "/a", .build_id = {}});
  const FileId b = symbolizer_->Intern({.path = "/b", .build_id = {}});
  EXPECT_EQ(a, FileId{0});
  EXPECT_EQ(b, FileId{1});
  EXPECT_EQ(symbolizer_->Intern({.path = "/a", .build_id = {}}), a);
  EXPECT_EQ(symbolizer_->Intern({.path = "/a", .build_id = {}, .inode = 3}), FileId{2});
  EXPECT_EQ(symbolizer_->Info(a).state, FileState::kNew);
}

TEST_F(SymbolizerTest, TwoIdentitiesOfOneFileShareOneIndex) {
  const std::string path = Write("prog", SmallElf("\x11\x22"));
  const FileId by_path = Settle(path);
  ASSERT_EQ(symbolizer_->Info(by_path).state, FileState::kReady);
  EXPECT_EQ(symbolizer_->Info(by_path).build_id, "1122");
  const uint64_t mapped = symbolizer_->MappedBytes();
  const FileId by_id =
      symbolizer_->Intern({.path = "/elsewhere", .build_id = {.bytes = {0x11, 0x22}, .size = 2}});
  symbolizer_->Request(by_id, 1, 0, 0, 0);
  EXPECT_EQ(symbolizer_->Info(by_id).state, FileState::kReady) << "at once, without the file";
  EXPECT_EQ(NameAt(by_id, 0x200), "named");
  EXPECT_EQ(symbolizer_->MappedBytes(), mapped);
}

TEST_F(SymbolizerTest, TwoRequestsOfOneBuildIdBuildOnce) {
  const BuildId id = {.bytes = {0x11, 0x22}, .size = 2};
  const FileId a = symbolizer_->Intern({.path = Write("a", SmallElf("\x11\x22")), .build_id = id});
  const FileId b = symbolizer_->Intern({.path = Write("b", SmallElf("\x11\x22")), .build_id = id});
  symbolizer_->Request(a, 1, 0, 0, 0);
  symbolizer_->Request(b, 1, 0, 0, 0);
  EXPECT_EQ(symbolizer_->Poll(0), 1U);
  Wait();
  EXPECT_EQ(NameAt(a, 0x200), "named");
  EXPECT_EQ(NameAt(b, 0x200), "named");
}

TEST_F(SymbolizerTest, UnknownOffsetsStayUnknown) {
  const FileId file = Settle(Write("prog", SmallElf("\x01")));
  EXPECT_EQ(NameAt(file, 0x1ff), "-");
  EXPECT_EQ(NameAt(file, 0x20f), "named");
  EXPECT_EQ(NameAt(file, 0x210), "-");
  EXPECT_EQ(NameAt(file, UINT64_MAX), "-");
}

TEST_F(SymbolizerTest, IndexIsKeptOnDiskAndNeedsNoHelperAgain) {
  const std::string path = Write("prog", SmallElf("\x11\x22"));
  ASSERT_EQ(symbolizer_->Info(Settle(path)).state, FileState::kReady);
  EXPECT_TRUE(fs::exists(cache_ + "/1122.fwsym"));
  options_.helper_path = "/nonexistent";
  Restart();
  const BuildId id = {.bytes = {0x11, 0x22}, .size = 2};
  const FileId file = Settle(FileIdentity{.path = path, .build_id = id});
  EXPECT_EQ(NameAt(file, 0x200), "named");
}

TEST_F(SymbolizerTest, CorruptIndexIsBuiltAgain) {
  const std::string path = Write("prog", SmallElf("\x11\x22"));
  ASSERT_EQ(symbolizer_->Info(Settle(path)).state, FileState::kReady);
  Restart();
  fs::resize_file(cache_ + "/1122.fwsym", 50);
  const FileId file = Settle(path);
  EXPECT_EQ(NameAt(file, 0x200), "named");
  EXPECT_EQ(Metric("firewatch_symbol_index_corrupt_total"), 1);
}

TEST_F(SymbolizerTest, FileWithoutBuildIdIsCachedUnderAMarkedName) {
  const FileId file = Settle(Write("prog", SmallElf("")));
  EXPECT_EQ(NameAt(file, 0x200), "named");
  EXPECT_EQ(symbolizer_->Info(file).build_id, "");
  int marked = 0;
  for (const auto& entry : fs::directory_iterator(cache_)) {
    marked += entry.path().filename().string().starts_with("pseudo-") ? 1 : 0;
  }
  EXPECT_EQ(marked, 1);
}

TEST_F(SymbolizerTest, WrongFileAtThePathIsRefusedByBuildId) {
  const FileId file = Settle(
      {.path = Write("prog", SmallElf("\x11\x22")), .build_id = {.bytes = {0x33}, .size = 1}});
  const FileInfo info = symbolizer_->Info(file);
  EXPECT_EQ(info.state, FileState::kUnreadable);
  EXPECT_THAT(std::string(info.reason), HasSubstr("has build id 1122, 33 was mapped"));
  EXPECT_FALSE(fs::exists(cache_ + "/33.fwsym"));
}

TEST_F(SymbolizerTest, DeletedProgramIsReadThroughItsProcess) {
  const std::string path = Write("prog", SmallElf("\x11\x22"));
  const base::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  void* mapped = ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd.get(), 0);
  if (mapped == MAP_FAILED) GTEST_SKIP() << "/tmp is mounted noexec";
  fs::remove(path);
  Write("prog", SmallElf("\x33", "decoy"));
  const TestMapping mapping = MappingOf(reinterpret_cast<uint64_t>(mapped));
  ASSERT_EQ(mapping.file.path, path + " (deleted)");
  const FileId file = RequestMapping(mapping);
  Wait();
  const FileInfo info = symbolizer_->Info(file);
  if (info.state == FileState::kUnreadable && ::geteuid() != 0) GTEST_SKIP() << info.reason;
  EXPECT_EQ(NameAt(file, 0x200), "named") << info.reason;
  ::munmap(mapped, 4096);
}

TEST_F(SymbolizerTest, MemfdIsReadThroughItsProcess) {
  if (::geteuid() != 0) GTEST_SKIP() << "map_files needs CAP_SYS_ADMIN";
  const std::string elf = SmallElf("\x44");
  const base::UniqueFd fd(::memfd_create("jit", MFD_CLOEXEC));
  ASSERT_EQ(::write(fd.get(), elf.data(), elf.size()), static_cast<ssize_t>(elf.size()));
  void* mapped = ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd.get(), 0);
  ASSERT_NE(mapped, MAP_FAILED);
  const TestMapping mapping = MappingOf(reinterpret_cast<uint64_t>(mapped));
  const FileId file = RequestMapping(mapping);
  Wait();
  EXPECT_EQ(NameAt(file, 0x200), "named") << symbolizer_->Info(file).reason;
  ::munmap(mapped, 4096);
}

TEST_F(SymbolizerTest, FilesWithoutNamesSayWhy) {
  const FileInfo anonymous = symbolizer_->Info(Settle("//anon"));
  EXPECT_EQ(anonymous.reason, "anonymous memory");
  EXPECT_EQ(anonymous.no_names, NameReason::kAnonymousMemory);
  const FileInfo gone = symbolizer_->Info(Settle(directory_ + "/gone"));
  EXPECT_THAT(std::string(gone.reason), HasSubstr("No such file or directory"));
  EXPECT_EQ(gone.no_names, NameReason::kNoFile);
  const FileInfo text = symbolizer_->Info(Settle(Write("text", "#!/bin/sh\n")));
  EXPECT_EQ(text.state, FileState::kRefused);
  EXPECT_EQ(text.no_names, NameReason::kRefused);
  EXPECT_THAT(std::string(text.reason), StartsWith("not an ELF file"));
  ElfBuilder stripped;
  stripped.Load(0, 0, 64, 64).Text(0, 0, 64);
  const FileInfo bare = symbolizer_->Info(Settle(Write("stripped", stripped.Build())));
  EXPECT_EQ(bare.state, FileState::kNoSymbols);
  EXPECT_EQ(bare.reason, "stripped, and without a build id nothing else can be found");
  EXPECT_EQ(bare.no_names, NameReason::kNoBuildId);
  stripped.BuildIdNote(std::string(20, '\x77'));
  const FileInfo known = symbolizer_->Info(Settle(Write("known", stripped.Build())));
  EXPECT_EQ(known.reason, "stripped: neither .symtab nor .dynsym");
  EXPECT_EQ(known.no_names, NameReason::kStripped);
}

TEST_F(SymbolizerTest, FifoAtTheMappedPathDoesNotHang) {
  const std::string path = directory_ + "/fifo";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const FileInfo info = symbolizer_->Info(Settle(path));
  EXPECT_EQ(info.state, FileState::kUnreadable);
  EXPECT_THAT(std::string(info.reason), HasSubstr("not a regular file"));
}

TEST_F(SymbolizerTest, FileThatKillsTheHelperIsRefusedAndTheNextOneIsRead) {
  options_.helper_max_seconds = 1;
  options_.helper_max_bytes = uint64_t{512} << 20;
  Restart();
  const FileId hostile = symbolizer_->Intern(
      {.path = Write("hostile", SmallElf("\x66", ExplosiveName())), .build_id = {}});
  const FileId good =
      symbolizer_->Intern({.path = Write("good", SmallElf("\x55")), .build_id = {}});
  symbolizer_->Request(hostile, 1, 0, 0, 0);
  symbolizer_->Request(good, 1, 0, 0, 0);
  Wait();
  const FileInfo info = symbolizer_->Info(hostile);
  EXPECT_EQ(info.state, FileState::kRefused);
  // A busy machine may not give it the one second of CPU within ten.
  EXPECT_THAT(std::string(info.reason),
              AnyOf(StartsWith("the symbol helper was lost on it: killed by"),
                    StartsWith("the symbol helper was lost on it: took more than")));
  EXPECT_EQ(NameAt(good, 0x200), "named");
  EXPECT_EQ(Metric("firewatch_symbol_helper_restarts_total{reason=\"crash\"}") +
                Metric("firewatch_symbol_helper_restarts_total{reason=\"timeout\"}"),
            1);
  EXPECT_EQ(Metric("firewatch_symbol_files_total{state=\"refused\"}"), 1);
  EXPECT_EQ(Metric("firewatch_agent_lost_total{reason=\"file_refused\"}"), 1);
}

TEST_F(SymbolizerTest, MissingHelperIsAReasonNotAHang) {
  options_.helper_path = "/bin/true";
  Restart();
  const FileInfo info = symbolizer_->Info(Settle(Write("prog", SmallElf("\x01"))));
  EXPECT_EQ(info.state, FileState::kUnreadable);
  EXPECT_EQ(info.reason, "symbol helper: exit code 0 at start");
  EXPECT_EQ(Metric("firewatch_symbol_helper_restarts_total{reason=\"start\"}"), 3);
}

TEST_F(SymbolizerTest, ManyFilesAreAnsweredInOnePoll) {
  std::vector<FileId> files;
  for (int i = 0; i < 200; ++i) {
    const std::string name = "f" + std::to_string(i);
    const std::string path = Write(name, SmallElf("id" + name, name));
    files.push_back(symbolizer_->Intern({.path = path, .build_id = {}}));
    symbolizer_->Request(files.back(), 1, 0, 0, 0);
  }
  Wait();
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(NameAt(files[static_cast<size_t>(i)], 0x200), "f" + std::to_string(i));
  }
}

TEST_F(SymbolizerTest, KernelFunctionIsNamed) {
  symbolizer_->RequestKernel();
  symbolizer_->WaitForKernel();
  if (const auto reason = symbolizer_->KernelReason(); !reason.empty()) GTEST_SKIP() << reason;
  std::ifstream kallsyms("/proc/kallsyms");
  unsigned long address = 0;
  for (std::string line; address == 0 && std::getline(kallsyms, line);) {
    if (line.ends_with(" T vfs_read")) std::sscanf(line.c_str(), "%lx", &address);
  }
  ASSERT_NE(address, 0U);
  const KernelSymbol symbol = symbolizer_->LookupKernel(address + 1);
  EXPECT_TRUE(symbol.found);
  EXPECT_EQ(symbol.name, "vfs_read");
  EXPECT_EQ(symbol.module, "");
  EXPECT_FALSE(symbolizer_->LookupKernel(0x1000).found);
  EXPECT_FALSE(symbolizer_->LookupKernel(UINT64_MAX).found);
  EXPECT_EQ(Metric("firewatch_symbol_kallsyms_reads_total"), 1) << "not again at once";
}

TEST_F(SymbolizerTest, HiddenKernelAddressesAreExplained) {
  fs::create_directories(directory_ + "/proc/sys/kernel");
  Write("proc/kallsyms", "0000000000000000 T _stext\n0000000000000000 T vfs_read\n");
  Write("proc/sys/kernel/kptr_restrict", "2\n");
  options_.proc_root = directory_ + "/proc";
  Restart();
  symbolizer_->RequestKernel();
  symbolizer_->WaitForKernel();
  EXPECT_THAT(std::string(symbolizer_->KernelReason()), HasSubstr("kernel.kptr_restrict is 2"));
  EXPECT_FALSE(symbolizer_->LookupKernel(0xffffffff81000000).found);
}

}  // namespace
}  // namespace firewatch::symbolizer
