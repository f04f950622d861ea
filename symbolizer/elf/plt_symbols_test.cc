// SPDX-License-Identifier: Apache-2.0
// PLT slots of programs made by this machine's linkers, judged by what their own code does, and of
// small ELF files whose slots no linker here makes.
#include "symbolizer/elf/plt_symbols.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "symbolizer/elf/elf_builder_for_test.h"
#include "symbolizer/elf/function_symbols.h"

namespace firewatch::symbolizer {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::Key;
using testing::Not;

std::map<uint64_t, std::string> PltOf(const std::string& bytes) {
  const SpanByteSource source(AsBytes(bytes));
  std::map<uint64_t, std::string> slots;
  const auto elf = ElfReader::Open(source);
  EXPECT_TRUE(elf.ok()) << elf.status();
  if (!elf.ok()) return slots;
  const auto functions = ReadFunctionSymbols(*elf);
  EXPECT_TRUE(functions.ok()) << functions.status();
  if (!functions.ok()) return slots;
  for (const InputSymbol& symbol : functions->symbols) {
    if (symbol.plt) slots[symbol.start] = symbol.name;
  }
  return slots;
}

// Section names of a file that the builder has made: it writes none.
constexpr std::string_view kSectionNames{"\0.plt\0.plt.sec\0.plt.got\0.rela.plt\0.rela.dyn\0", 43};
constexpr uint32_t kPlt = 1, kPltSec = 6, kPltGot = 15, kRelaPlt = 24, kRelaDyn = 34;

// Code at offset and address 0x1000, relocations at 0x2000, section names at 0x3000.
class Program {
 public:
  Program() {
    builder_.Load(0, 0, 0x4000, 0x4000);
    builder_.symbols.clear();
    builder_.symbols.push_back({});
    const uint16_t names = builder_.Section(SHT_STRTAB, 0, 0, 0x3000, kSectionNames.size());
    builder_.header.e_shstrndx = names;
    Place(0x3000, kSectionNames);
  }
  // `code` at `offset` of the code.
  Program& Table(uint32_t name, uint64_t at, std::string_view code, uint64_t entry_size = 16) {
    const uint16_t section = builder_.Text(at, at, code.size());
    builder_.sections[section].sh_name = name;
    builder_.sections[section].sh_entsize = entry_size;
    Place(at, code);
    return *this;
  }
  Program& Import(std::string_view name) {
    builder_.Symbol(name, 0, 0, SHN_UNDEF);
    return *this;
  }
  Program& Relocations(uint32_t name, uint64_t at, std::vector<Elf64_Rela> entries) {
    const uint16_t section =
        builder_.Section(SHT_RELA, SHF_ALLOC, at, at, entries.size() * sizeof(Elf64_Rela));
    builder_.sections[section].sh_name = name;
    relocations_.push_back(section);
    Place(at, {reinterpret_cast<const char*>(entries.data()), entries.size() * sizeof(Elf64_Rela)});
    return *this;
  }
  ElfBuilder& builder() { return builder_; }
  std::string Build() {
    builder_.table_type = SHT_DYNSYM;
    // The symbol table comes after all other sections.
    for (const uint16_t section : relocations_) {
      builder_.sections[section].sh_link = static_cast<uint32_t>(builder_.sections.size());
    }
    std::string bytes = builder_.Build(0x4000);
    for (const auto& [at, content] : content_) bytes.replace(at, content.size(), content);
    return bytes;
  }

 private:
  void Place(uint64_t at, std::string_view bytes) { content_[at] = bytes; }
  ElfBuilder builder_;
  std::map<uint64_t, std::string> content_;
  std::vector<uint16_t> relocations_;
};

Elf64_Rela Rela(uint64_t got, uint32_t type, uint32_t symbol, int64_t addend = 0) {
  return {.r_offset = got, .r_info = ELF64_R_INFO(uint64_t{symbol}, type), .r_addend = addend};
}

// jmp *disp(%rip) at `at`, `before` in front of it, filled up to `size` bytes.
std::string Jump(uint64_t at, uint64_t got, std::string_view before, std::string_view opcode,
                 size_t size) {
  std::string code(before);
  code += opcode;
  const auto next = at + code.size() + 4;
  const auto distance =
      static_cast<int32_t>(static_cast<int64_t>(got) - static_cast<int64_t>(next));
  code.append(reinterpret_cast<const char*>(&distance), sizeof(distance));
  code.resize(size, '\x90');
  return code;
}

constexpr std::string_view kJmp{"\xff\x25", 2};
constexpr std::string_view kBndJmp{"\xf2\xff\x25", 3};
constexpr std::string_view kEndbr{"\xf3\x0f\x1e\xfa", 4};

TEST(PltSymbolsTest, ClassicTableItsHeaderStaysUnknown) {
  const std::string header =
      Jump(0x1000, 0x5010, std::string_view("\xff\x35\0\0\0\0", 6), kJmp, 16);
  const std::string code = header + Jump(0x1010, 0x5018, "", kJmp, 16) +
                           Jump(0x1020, 0x5020, "", kJmp, 16) + Jump(0x1030, 0x5028, "", kJmp, 16);
  const auto slots = PltOf(
      Program()
          .Import("puts")
          .Import("exit")
          .Table(kPlt, 0x1000, code)
          .Relocations(kRelaPlt, 0x2000,
                       {Rela(0x5018, R_X86_64_JUMP_SLOT, 1), Rela(0x5020, R_X86_64_JUMP_SLOT, 2),
                        Rela(0x5028, R_X86_64_JUMP_SLOT, 77)})
          .Build());
  EXPECT_THAT(slots, ElementsAre(std::pair(0x1010, "puts@plt"), std::pair(0x1020, "exit@plt")));
}

TEST(PltSymbolsTest, IbtTableHasBothHalvesAndBndForms) {
  std::string lazy = std::string(kEndbr) + std::string("\x68\x01\0\0\0", 5);
  lazy.resize(16, '\x90');
  const auto slots = PltOf(
      Program()
          .Import("puts")
          .Import("exit")
          .Import("got_only")
          .Table(kPlt, 0x1000, std::string(16, '\x90') + lazy)
          .Table(kPltSec, 0x1100,
                 Jump(0x1100, 0x5018, kEndbr, kBndJmp, 16) + Jump(0x1110, 0x5020, kEndbr, kJmp, 16))
          .Table(kPltGot, 0x1200, Jump(0x1200, 0x5030, "", kJmp, 8), 8)
          .Relocations(kRelaPlt, 0x2000,
                       {Rela(0x5018, R_X86_64_JUMP_SLOT, 1), Rela(0x5020, R_X86_64_JUMP_SLOT, 2)})
          .Relocations(kRelaDyn, 0x2100, {Rela(0x5030, R_X86_64_GLOB_DAT, 3)})
          .Build());
  EXPECT_THAT(slots, ElementsAre(std::pair(0x1010, "exit@plt"), std::pair(0x1100, "puts@plt"),
                                 std::pair(0x1110, "exit@plt"), std::pair(0x1200, "got_only@plt")));
}

TEST(PltSymbolsTest, RetpolineSlotIsTwiceAsLong) {
  const std::string code = Jump(0x1000, 0x5018, "", std::string_view("\x4c\x8b\x1d", 3), 32) +
                           Jump(0x1020, 0x5020, "", std::string_view("\x4c\x8b\x1d", 3), 32);
  Program program;
  program.Import("puts")
      .Import("exit")
      .Table(kPlt, 0x1000, code)
      .Relocations(kRelaPlt, 0x2000,
                   {Rela(0x5018, R_X86_64_JUMP_SLOT, 1), Rela(0x5020, R_X86_64_JUMP_SLOT, 2)});
  EXPECT_THAT(PltOf(program.Build()),
              ElementsAre(std::pair(0x1000, "puts@plt"), std::pair(0x1020, "exit@plt")));
}

TEST(PltSymbolsTest, IndirectFunctionIsNamedByItsResolver) {
  Program program;
  program.Table(kPlt, 0x1000, Jump(0x1000, 0x5018, "", kJmp, 16))
      .Relocations(kRelaPlt, 0x2000, {Rela(0x5018, R_X86_64_IRELATIVE, 0, 0x1300)});
  const uint16_t text = program.builder().Text(0x1300, 0x1300, 0x100);
  program.builder().Symbol("strlen", 0x1300, 0x10, text, STT_GNU_IFUNC);
  EXPECT_THAT(PltOf(program.Build()), ElementsAre(std::pair(0x1000, "strlen@plt")));
}

TEST(PltSymbolsTest, NonsenseNamesNothing) {
  Program program;
  program.Import("puts")
      .Table(kPlt, 0x1000, std::string(64, '\xff'), 7)
      .Relocations(kRelaPlt, 0x2000, {Rela(0x5018, R_X86_64_JUMP_SLOT, 0xffffff)});
  EXPECT_THAT(PltOf(program.Build()), ElementsAre());
}

// The programs that the other tests run, by three linkers: all of them call into libc.
class LinkedProgramTest : public testing::TestWithParam<const char*> {};

TEST_P(LinkedProgramTest, CallsIntoLibcAreNamed) {
  const std::string path = std::string(FIREWATCH_FIXTURES) + "/" + GetParam();
  std::ifstream file(path, std::ios::binary);
  if (!file) GTEST_SKIP() << "its linker is not on this machine: " << path;
  const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  std::vector<std::string> names;
  for (const auto& [start, name] : PltOf(bytes)) names.push_back(name);
  EXPECT_THAT(names, Contains("printf@plt"));
}

INSTANTIATE_TEST_SUITE_P(Linkers, LinkedProgramTest,
                         testing::Values("lld_pie", "lld_exec_far", "gold_pie", "gold_exec_far",
                                         "bfd_pie"));

}  // namespace
}  // namespace firewatch::symbolizer
