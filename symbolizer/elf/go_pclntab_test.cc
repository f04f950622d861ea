// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/elf/go_pclntab.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "symbolizer/elf/function_symbols.h"

namespace firewatch::symbolizer {
namespace {

using testing::ElementsAre;

// Tables of two functions, "main.f" at 0x10 and "main.g" at 0x20 to 0x28, counted from `base`.
class TableBuilder {
 public:
  template <typename T>
  void Put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void Header(uint32_t magic) {
    Put(magic);
    Put(uint16_t{0});
    Put(uint8_t{1});
    Put(uint8_t{8});
    Put(uint64_t{2});  // functions
  }
  // The pairs, then the details; `from` is what offsets of details count from.
  template <typename Number>
  void Functions(uint64_t base, size_t from, uint32_t names) {
    const size_t pairs = bytes_.size();
    const size_t details = pairs + 5 * sizeof(Number) - from;
    constexpr size_t kDetails = sizeof(Number) + 4;
    Put(static_cast<Number>(base + 0x10));
    Put(static_cast<Number>(details));
    Put(static_cast<Number>(base + 0x20));
    Put(static_cast<Number>(details + kDetails));
    Put(static_cast<Number>(base + 0x28));
    Put(static_cast<Number>(base + 0x10));
    Put(names);
    Put(static_cast<Number>(base + 0x20));
    Put(names + 7);
  }
  static constexpr std::string_view kNames{"main.f\0main.g\0", 14};
  std::string bytes_;
};

std::string Go12() {
  TableBuilder table;
  table.Header(0xfffffffb);
  // Five numbers and two details of 12 bytes follow, then the names.
  table.Functions<uint64_t>(0x1000, 0, static_cast<uint32_t>(16 + 5 * 8 + 2 * 12));
  return table.bytes_.append(TableBuilder::kNames);
}

std::string Go116() {
  TableBuilder table;
  table.Header(0xfffffffa);
  const size_t names = 8 + 7 * 8;
  const size_t functions = names + TableBuilder::kNames.size();
  for (const size_t word : {size_t{1}, names, size_t{0}, size_t{0}, size_t{0}, functions}) {
    table.Put(uint64_t{word});
  }
  table.bytes_.append(TableBuilder::kNames);
  table.Functions<uint64_t>(0x1000, functions, 0);
  return table.bytes_;
}

std::string Go118(uint32_t magic) {
  TableBuilder table;
  table.Header(magic);
  const size_t names = 8 + 8 * 8;
  const size_t functions = names + TableBuilder::kNames.size();
  for (const size_t word :
       {size_t{1}, size_t{0x1000}, names, size_t{0}, size_t{0}, size_t{0}, functions}) {
    table.Put(uint64_t{word});
  }
  table.bytes_.append(TableBuilder::kNames);
  table.Functions<uint32_t>(0, functions, 0);
  return table.bytes_;
}

std::vector<std::string> Functions(const std::string& table, uint64_t text_start = 0x1000) {
  const auto functions = ReadGoFunctions(table, text_start);
  if (!functions.ok()) return {std::string(base::Message(functions.status()))};
  std::vector<std::string> out;
  for (const GoFunction& function : *functions) {
    out.push_back(fmt::format("{:x}-{:x} {}", function.start, function.end, function.name));
  }
  return out;
}

TEST(GoPclntabTest, EveryForm) {
  const auto expected = ElementsAre("1010-1020 main.f", "1020-1028 main.g");
  EXPECT_THAT(Functions(Go12()), expected);
  EXPECT_THAT(Functions(Go116()), expected);
  EXPECT_THAT(Functions(Go118(0xfffffff0)), expected);
  EXPECT_THAT(Functions(Go118(0xfffffff1)), expected);
}

TEST(GoPclntabTest, TextStartIsAskedForByNewFormsOnly) {
  uint64_t start = 7;
  EXPECT_FALSE(NeedsGoTextStart(Go116(), &start));
  EXPECT_TRUE(NeedsGoTextStart(Go118(0xfffffff1), &start));
  EXPECT_EQ(start, 0x1000U);
  EXPECT_FALSE(NeedsGoTextStart({}, &start));
}

TEST(GoPclntabTest, DamagedTablesNameNothingThatIsNotThere) {
  for (const std::string& good : {Go12(), Go116(), Go118(0xfffffff1)}) {
    for (size_t size = 0; size < good.size(); ++size) {
      const std::string cut = good.substr(0, size);
      const auto functions = ReadGoFunctions(cut, 0x1000);
      if (!functions.ok()) continue;
      for (const GoFunction& function : *functions) {
        EXPECT_TRUE(function.name == "main.f" || function.name == "main.g");
      }
    }
  }
  std::string bad = Go118(0xfffffff1);
  bad[7] = 4;
  EXPECT_THAT(Functions(bad), ElementsAre("not a pclntab of a 64-bit Go program"));
  bad = Go118(0xfffffff1);
  std::memset(bad.data() + 8, 0xff, 8);
  EXPECT_THAT(Functions(bad), ElementsAre("parts of the pclntab lie outside of it"));
  EXPECT_THAT(Functions(Go118(0xfffffff1), UINT64_MAX - 0x15), ElementsAre());
}

// Programs of the Go that this machine has: the symbol table of the whole one judges the others.
class GoProgramTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* home = "/usr/local/go/bin/go";
    if (std::system("go version >/dev/null 2>&1") == 0) {
      go_ = "go";
    } else if (::access(home, X_OK) == 0) {
      go_ = home;
    } else {
      GTEST_SKIP() << "no go on this machine";
    }
    std::string path = "/tmp/go_pclntab_test-XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    directory_ = path;
    std::ofstream(directory_ + "/main.go")
        << "package main\n\ntype thing struct{ n int }\n\n"
           "//go:noinline\nfunc (t *thing) Spin(n int) int { t.n += n; return t.n }\n\n"
           "func main() { println((&thing{}).Spin(3)) }\n";
  }
  void TearDown() override {
    if (!directory_.empty()) std::filesystem::remove_all(directory_);
  }
  std::string Build(const std::string& name, const std::string& flags) const {
    const std::string out = directory_ + "/" + name;
    const std::string command = "cd " + directory_ +
                                " && export GOCACHE=\"${GOCACHE:-${HOME:-$PWD}/.cache/go-build}\"" +
                                " GOFLAGS= GO111MODULE=off CGO_ENABLED=0 && " + go_ + " build " +
                                flags + " -o " + name + " main.go";
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
    std::ifstream file(out, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  static std::map<uint64_t, std::string> StartsOf(const std::string& elf_bytes, bool is_go) {
    const SpanByteSource source(std::as_bytes(std::span<const char>(elf_bytes)));
    std::map<uint64_t, std::string> starts;
    const auto elf = ElfReader::Open(source);
    EXPECT_TRUE(elf.ok()) << elf.status();
    if (!elf.ok()) return starts;
    const auto functions = ReadFunctionSymbols(*elf);
    EXPECT_TRUE(functions.ok()) << functions.status();
    EXPECT_EQ(functions->is_go, is_go);
    for (const InputSymbol& symbol : functions->symbols) starts[symbol.start] = symbol.name;
    return starts;
  }

  std::string go_;
  std::string directory_;
};

TEST_F(GoProgramTest, StrippedProgramHasTheNamesOfTheWholeOne) {
  const std::string whole = Build("whole", "-ldflags=-w");
  const std::string stripped = Build("stripped", "-ldflags='-s -w'");
  ASSERT_FALSE(whole.empty() || stripped.empty());
  const auto expected = StartsOf(whole, true);
  const auto found = StartsOf(stripped, true);
  ASSERT_GT(found.size(), 500U);
  size_t named = 0, equal = 0;
  for (const auto& [start, name] : found) {
    const auto other = expected.find(start);
    named += other != expected.end();
    // The symbol table writes type arguments in full, pclntab "[...]"; and it marks assembly.
    const auto plain = [](std::string text) {
      text.resize(std::min(text.find('['), text.size()));
      if (text.ends_with(".abi0")) text.resize(text.size() - 5);
      return text;
    };
    equal += other != expected.end() && plain(other->second) == plain(name);
  }
  EXPECT_GE(named, found.size() * 99 / 100) << found.size();
  EXPECT_GE(equal, found.size() * 99 / 100) << found.size();
  bool spin = false;
  for (const auto& [start, name] : found) spin |= name == "main.(*thing).Spin";
  EXPECT_TRUE(spin);
}

TEST_F(GoProgramTest, PositionIndependentProgramsTextIsFound) {
  const std::string whole = Build("whole", "-buildmode=pie -ldflags=-w");
  const std::string stripped = Build("pie", "-buildmode=pie -ldflags='-s -w'");
  ASSERT_FALSE(whole.empty() || stripped.empty());
  uint64_t expected = 0, found = 0;
  for (const auto& [start, name] : StartsOf(whole, true)) {
    if (name == "main.(*thing).Spin") expected = start;
  }
  for (const auto& [start, name] : StartsOf(stripped, true)) {
    if (name == "main.(*thing).Spin") found = start;
  }
  EXPECT_NE(found, 0U);
  EXPECT_EQ(found, expected);
}

}  // namespace
}  // namespace firewatch::symbolizer
