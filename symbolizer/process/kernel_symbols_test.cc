// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/process/kernel_symbols.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "base/clock.h"
#include "base/metrics.h"

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
  KernelSymbols Make() { return KernelSymbols(proc_, *cache_, clock_, metrics_); }

  std::string proc_;
  std::unique_ptr<IndexCache> cache_;
  base::FakeClock clock_{base::WallTime{0}, 100 * kSecond};
  base::MetricsRegistry metrics_;
};

TEST_F(KernelSymbolsTest, AnotherModuleAtTheSameAddressesIsNoticed) {
  Load("first", "first_read");
  KernelSymbols symbols = Make();
  EXPECT_EQ(symbols.Lookup(0xffffffffc0000010).name, "first_read");
  EXPECT_EQ(symbols.Lookup(0xffffffffc0000010).module, "first");
  Load("second", "second_write");
  clock_.AdvanceNs(11 * kSecond);
  EXPECT_EQ(symbols.Lookup(0xffffffffc0000010).name, "second_write");
  EXPECT_EQ(symbols.Lookup(0xffffffffc0000010).module, "second");
  EXPECT_EQ(symbols.Lookup(0xffffffff81000010).name, "core");
}

TEST_F(KernelSymbolsTest, AModuleThatCameLaterIsFoundAndOneThatWentIsNot) {
  Write("kallsyms", "ffffffff81000000 T core\nffffffff81001000 T core_end\n");
  Write("modules", "");
  KernelSymbols symbols = Make();
  EXPECT_FALSE(symbols.Lookup(0xffffffffc0000010).found);
  Load("late", "late_read");
  EXPECT_FALSE(symbols.Lookup(0xffffffffc0000010).found) << "the list was read a moment ago";
  clock_.AdvanceNs(21 * kSecond);
  EXPECT_EQ(symbols.Lookup(0xffffffffc0000010).name, "late_read");
  Write("kallsyms", "ffffffff81000000 T core\nffffffff81001000 T core_end\n");
  Write("modules", "");
  clock_.AdvanceNs(11 * kSecond);
  EXPECT_FALSE(symbols.Lookup(0xffffffffc0000010).found);
}

TEST_F(KernelSymbolsTest, ATableOfZerosIsAMissingRight) {
  std::string hidden;
  for (int i = 0; i < 300; ++i) hidden += "0000000000000000 T function" + std::to_string(i) + "\n";
  Write("kallsyms", hidden);
  KernelSymbols symbols = Make();
  EXPECT_FALSE(symbols.Lookup(0xffffffff81000010).found);
  EXPECT_NE(symbols.Reason().find("kptr_restrict is 2"), std::string_view::npos)
      << symbols.Reason();
}

}  // namespace
}  // namespace firewatch::symbolizer
