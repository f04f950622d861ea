// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/process/kernel_symbols.h"

#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/unique_fd.h"

namespace firewatch::symbolizer {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;

class KernelSymbolsTest : public testing::Test {
 protected:
  KernelSymbolsTest() {
    proc_ = (std::filesystem::temp_directory_path() / "firewatch-proc-XXXXXX").string();
    EXPECT_NE(::mkdtemp(proc_.data()), nullptr);
    Write("sys/kernel/random/boot_id", "0123\n");
    Write("sys/kernel/kptr_restrict", "2\n");
    cache_ = IndexCache::Open("", uint64_t{1} << 20).value();
  }
  ~KernelSymbolsTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(proc_, ignored);
  }
  void Write(const std::string& name, const std::string& text) {
    const std::filesystem::path path = proc_ + "/" + name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  // A kernel with one module of that name and function at one address.
  void Load(const std::string& module, const std::string& function) {
    Write("kallsyms", "ffffffff81000000 T core\nffffffff81001000 T core_end\nffffffffc0000000 t " +
                          function + "\t[" + module + "]\n");
    Write("modules", module + " 16384 0 - Live 0xffffffffc0000000\n");
  }
  KernelSymbols Make(std::unique_ptr<BpfProgramReader> programs = nullptr) {
    return KernelSymbols(proc_, *cache_, clock_, metrics_, std::move(programs));
  }
  double Reads() {
    return static_cast<double>(
        metrics_.AddCounter("firewatch_symbol_kallsyms_reads_total", "").value());
  }

  std::string proc_;
  std::unique_ptr<IndexCache> cache_;
  base::FakeClock clock_{base::WallTime{0}, 100 * kSecond};
  base::MetricsRegistry metrics_;
};

void Wait(KernelSymbols& symbols) {
  symbols.Request();
  symbols.Poll(60'000);
  ASSERT_FALSE(symbols.is_pending());
}

TEST_F(KernelSymbolsTest, NamesArePendingWhileTheListIsRead) {
  Load("first", "first_read");
  KernelSymbols symbols = Make();
  const KernelSymbol early = symbols.Lookup(0xffffffff81000010);
  EXPECT_FALSE(early.found);
  EXPECT_TRUE(early.pending);
  Wait(symbols);
  const KernelSymbol found = symbols.Lookup(0xffffffff81000010);
  EXPECT_EQ(found.name, "core");
  EXPECT_FALSE(found.pending);
  EXPECT_GT(symbols.child_cpu_ns(), 0u);
  EXPECT_EQ(Reads(), 1);
}

TEST_F(KernelSymbolsTest, AnotherModuleAtTheSameAddressesIsNoticed) {
  Load("first", "first_read");
  KernelSymbols symbols = Make();
  Wait(symbols);
  EXPECT_EQ(symbols.Lookup(0xffffffffc0000010).name, "first_read");
  EXPECT_EQ(symbols.Lookup(0xffffffffc0000010).module, "first");
  Load("second", "second_write");
  clock_.AdvanceNs(11 * kSecond);
  EXPECT_TRUE(symbols.Lookup(0xffffffffc0000010).pending) << "no longer the first one's";
  EXPECT_EQ(symbols.Lookup(0xffffffff81000010).name, "core") << "that has not changed";
  Wait(symbols);
  EXPECT_EQ(symbols.Lookup(0xffffffffc0000010).name, "second_write");
  EXPECT_EQ(symbols.Lookup(0xffffffffc0000010).module, "second");
  EXPECT_EQ(symbols.Lookup(0xffffffff81000010).name, "core");
}

TEST_F(KernelSymbolsTest, AModuleThatCameLaterIsFoundAndOneThatWentIsNot) {
  Write("kallsyms", "ffffffff81000000 T core\nffffffff81001000 T core_end\n");
  Write("modules", "");
  KernelSymbols symbols = Make();
  Wait(symbols);
  EXPECT_FALSE(symbols.Lookup(0xffffffffc0000010).found);
  Load("late", "late_read");
  EXPECT_FALSE(symbols.Lookup(0xffffffffc0000010).pending) << "the list was read a moment ago";
  clock_.AdvanceNs(21 * kSecond);
  EXPECT_TRUE(symbols.Lookup(0xffffffffc0000010).pending);
  Wait(symbols);
  EXPECT_EQ(symbols.Lookup(0xffffffffc0000010).name, "late_read");
  Write("kallsyms", "ffffffff81000000 T core\nffffffff81001000 T core_end\n");
  Write("modules", "");
  clock_.AdvanceNs(11 * kSecond);
  EXPECT_FALSE(symbols.Lookup(0xffffffffc0000010).found);
  Wait(symbols);
  EXPECT_FALSE(symbols.Lookup(0xffffffffc0000010).found);
}

// Programs that are loaded while the test runs.
class FakePrograms final : public BpfProgramReader {
 public:
  explicit FakePrograms(std::vector<BpfFunction>* fresh, int* looks)
      : fresh_(fresh), looks_(looks) {}
  std::vector<BpfFunction> ReadNew() override {
    ++*looks_;
    return std::exchange(*fresh_, {});
  }

 private:
  std::vector<BpfFunction>* fresh_;
  int* looks_;
};

TEST_F(KernelSymbolsTest, ProgramsAreNamedWithoutReadingEverythingAgain) {
  Write("kallsyms",
        "ffffffff81000000 T core\nffffffff81001000 T core_end\n"
        "ffffffffc0000000 t bpf_prog_01_old\t[bpf]\n");
  Write("modules", "");
  std::vector<BpfFunction> fresh;
  int looks = 0;
  KernelSymbols symbols = Make(std::make_unique<FakePrograms>(&fresh, &looks));
  Wait(symbols);
  EXPECT_EQ(symbols.Lookup(0xffffffff81000010).name, "core");
  EXPECT_EQ(looks, 0) << "nobody asked for a program";
  EXPECT_EQ(symbols.Lookup(0xffffffffc0000010).name, "bpf_prog_01_old") << "kallsyms knows it";
  EXPECT_FALSE(symbols.Lookup(0xffffffffc1000010).found);
  // One that came, and one in the place of another.
  fresh = {{0xffffffffc1000000, 0xffffffffc1000100, "bpf_prog_02_new"},
           {0xffffffffc0000000, 0xffffffffc0000100, "bpf_prog_03_other"}};
  EXPECT_FALSE(symbols.Lookup(0xffffffffc1000010).found) << "looked at a moment ago";
  clock_.AdvanceNs(2 * kSecond);
  const KernelSymbol found = symbols.Lookup(0xffffffffc1000010);
  EXPECT_EQ(found.name, "bpf_prog_02_new");
  EXPECT_EQ(found.module, "bpf");
  EXPECT_EQ(symbols.Lookup(0xffffffffc0000010).name, "bpf_prog_03_other");
  fresh = {{0xffffffffc1000000, 0xffffffffc1000080, "bpf_prog_04_newer"}};
  clock_.AdvanceNs(2 * kSecond);
  EXPECT_EQ(symbols.Lookup(0xffffffffc1000010).name, "bpf_prog_04_newer");
  EXPECT_EQ(found.name, "bpf_prog_02_new") << "valid until DropRetired";
  symbols.DropRetired();
  EXPECT_FALSE(symbols.Lookup(0xffffffffc1000090).found) << "behind its end";
  EXPECT_EQ(Reads(), 1);
}

TEST_F(KernelSymbolsTest, AHopelessAddressIsReadForLessAndLessOften) {
  Write("kallsyms", "ffffffff81000000 T core\nffffffff81001000 T core_end\n");
  Write("modules", "");
  KernelSymbols symbols = Make();
  Wait(symbols);
  for (int second = 0; second < 3'600; ++second) {
    if (symbols.Lookup(0xffffffffc0000010).pending) Wait(symbols);
    clock_.AdvanceNs(kSecond);
  }
  // At 0, 1, 3, 7 and 15 minutes, then every 10 minutes.
  EXPECT_EQ(Reads(), 9);
}

// A program that returns 0, so that there is one to see; -1 where none may be loaded.
base::UniqueFd LoadSomeProgram() {
  const bpf_insn code[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0},
                           {.code = BPF_JMP | BPF_EXIT}};
  bpf_attr attributes{};
  attributes.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
  attributes.insns = reinterpret_cast<uint64_t>(code);
  attributes.insn_cnt = std::size(code);
  attributes.license = reinterpret_cast<uint64_t>("GPL");
  constexpr std::string_view kName = "firewatch_test";
  kName.copy(attributes.prog_name, sizeof(attributes.prog_name) - 1);
  return base::UniqueFd(
      static_cast<int>(::syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof(attributes))));
}

TEST(BpfProgramReaderTest, ThisKernelsProgramsAreThoseOfKallsyms) {
  const base::UniqueFd program = LoadSomeProgram();
  if (!program.valid()) GTEST_SKIP() << "no right to load a program: " << std::strerror(errno);
  const auto reader = BpfProgramReader::ForThisKernel();
  const std::vector<BpfFunction> functions = reader->ReadNew();
  ASSERT_FALSE(functions.empty());
  EXPECT_TRUE(std::any_of(functions.begin(), functions.end(), [](const BpfFunction& function) {
    return function.name.ends_with("_firewatch_test");
  }));
  EXPECT_TRUE(reader->ReadNew().size() <= functions.size());
  std::map<uint64_t, std::string> listed;
  std::ifstream kallsyms("/proc/kallsyms");
  for (std::string line; std::getline(kallsyms, line);) {
    if (line.find("[bpf]") == std::string::npos) continue;
    const size_t name = line.find(' ', 17) + 1;
    listed[std::stoull(line.substr(0, 16), nullptr, 16)] =
        line.substr(name, line.find('\t') - name);
  }
  if (listed.empty()) GTEST_SKIP() << "kallsyms lists no programs (net.core.bpf_jit_kallsyms)";
  // Others load and unload meanwhile, also to the same place.
  std::set<std::pair<uint64_t, std::string>> still_there;
  for (const BpfFunction& function : BpfProgramReader::ForThisKernel()->ReadNew()) {
    still_there.emplace(function.start, function.name);
  }
  size_t same = 0;
  for (const BpfFunction& function : functions) {
    if (!still_there.contains({function.start, function.name})) continue;
    const auto found = listed.find(function.start);
    if (found == listed.end()) continue;  // the list moves while it is read
    EXPECT_EQ(found->second, function.name);
    ++same;
  }
  EXPECT_GE(same * 2, functions.size());
}

TEST_F(KernelSymbolsTest, ATableOfZerosIsAMissingRight) {
  std::string hidden;
  for (int i = 0; i < 300; ++i) hidden += "0000000000000000 T function" + std::to_string(i) + "\n";
  Write("kallsyms", hidden);
  KernelSymbols symbols = Make();
  Wait(symbols);
  EXPECT_FALSE(symbols.Lookup(0xffffffff81000010).found);
  EXPECT_NE(symbols.Reason().find("kptr_restrict is 2"), std::string_view::npos)
      << symbols.Reason();
}

}  // namespace
}  // namespace firewatch::symbolizer
