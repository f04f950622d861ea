// SPDX-License-Identifier: Apache-2.0
// From ELF bytes through the helper's work to names: the whole path but for process and socket.
#include "symbolizer/elf/function_symbols.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <memory>
#include <string>

#include "base/mapped_file.h"
#include "base/unique_fd.h"
#include "symbolizer/elf/elf_builder_for_test.h"
#include "symbolizer/helper/elf_index.h"
#include "symbolizer/index/symbol_index.h"

namespace firewatch::symbolizer {
namespace {

class NamesTest : public testing::Test {
 protected:
  void Index(std::string elf) {
    index_ = {};
    file_ = {};
    fd_.Reset(::memfd_create("index", MFD_CLOEXEC));
    answer_ = AnswerForElf(HelperOperation::kBuild, SpanByteSource(AsBytes(elf)), fd_.get());
    if (answer_.status != HelperStatus::kOk) return;
    auto file = base::MappedFile::FromFd(fd_.get(), "index");
    ASSERT_TRUE(file.ok());
    file_ = *std::move(file);
    auto index = SymbolIndex::Parse(file_.bytes());
    ASSERT_TRUE(index.ok()) << index.status();
    index_ = *index;
  }
  std::string At(uint64_t offset) const {
    IndexFrame frame[1];
    return index_.FindOffset(offset, frame) == 0 ? "-" : index_.DisplayName(frame[0].name);
  }

  base::UniqueFd fd_;
  base::MappedFile file_;
  SymbolIndex index_;
  HelperAnswer answer_;
};

// .text at offset 0x200 and address 0x11200, 0x100 bytes.
ElfBuilder WithText() {
  ElfBuilder builder;
  builder.Load(0x200, 0x11200, 0x100, 0x100);
  builder.Text(0x11200, 0x200, 0x100);
  return builder;
}

TEST_F(NamesTest, SizedSymbolEndsWithItsSizeAndTheGapStaysUnknown) {
  ElfBuilder builder = WithText();
  builder.Symbol("first", 0x11210, 0x10, 1).Symbol("second", 0x11240, 0x10, 1);
  Index(builder.Build(0x300));
  EXPECT_EQ(At(0x20f), "-");
  EXPECT_EQ(At(0x210), "first");
  EXPECT_EQ(At(0x21f), "first");
  EXPECT_EQ(At(0x220), "-");
  EXPECT_EQ(At(0x23f), "-");
  EXPECT_EQ(At(0x240), "second");
  EXPECT_EQ(At(0x250), "-");
}

TEST_F(NamesTest, SymbolWithoutSizeReachesToTheNextAndNeverPastItsSection) {
  ElfBuilder builder = WithText();
  builder.Load(0x300, 0x12300, 0x80, 0x80).Text(0x12300, 0x300, 0x80);
  builder.Symbol("label", 0x11210, 0, 1, STT_NOTYPE)
      .Symbol("sized", 0x11230, 0x10, 1)
      .Symbol("last", 0x112f0, 0, 1);
  Index(builder.Build(0x400));
  EXPECT_EQ(At(0x210), "label");
  EXPECT_EQ(At(0x22f), "label");
  EXPECT_EQ(At(0x230), "sized");
  EXPECT_EQ(At(0x240), "-");
  EXPECT_EQ(At(0x2f0), "last");
  EXPECT_EQ(At(0x2ff), "last");
  EXPECT_EQ(At(0x300), "-") << "another section";
}

TEST_F(NamesTest, SymbolThatClaimsMoreThanItsSectionIsCut) {
  ElfBuilder builder = WithText();
  builder.Symbol("greedy", 0x112f0, UINT64_MAX, 1);
  Index(builder.Build(0x400));
  EXPECT_EQ(At(0x2ff), "greedy");
  EXPECT_EQ(At(0x300), "-");
}

TEST_F(NamesTest, LabelInsideAFunctionDoesNotSplitIt) {
  ElfBuilder builder = WithText();
  builder.Symbol("function", 0x11210, 0x40, 1).Symbol("label", 0x11220, 0, 1, STT_NOTYPE);
  Index(builder.Build(0x300));
  EXPECT_EQ(At(0x221), "function");
}

TEST_F(NamesTest, DataUndefinedAndEndMarkersAreNoCode) {
  ElfBuilder builder = WithText();
  builder.Section(SHT_PROGBITS, SHF_ALLOC | SHF_WRITE, 0x11280, 0x280, 0x40);
  builder.Symbol("object", 0x11210, 0x10, 1, STT_OBJECT)
      .Symbol("undefined", 0x11220, 0x10, SHN_UNDEF)
      .Symbol("absolute", 0x11230, 0x10, SHN_ABS)
      .Symbol("_etext", 0x11300, 0, 1, STT_NOTYPE)
      .Symbol("in_data", 0x11290, 0x10, 2, STT_NOTYPE);
  Index(builder.Build(0x400));
  EXPECT_EQ(index_.symbol_count(), 0U);
  EXPECT_TRUE(index_.has_table());
}

TEST_F(NamesTest, TwoExecutableSegmentsWithDifferentDistances) {
  ElfBuilder builder = WithText();
  builder.Load(0x345, 0x969be40 + 0x345, 0x80, 0x80).Text(0x969be40 + 0x345, 0x345, 0x80);
  builder.Symbol("near", 0x11200, 0x10, 1).Symbol("far", 0x969be40 + 0x345, 0x80, 2);
  Index(builder.Build(0x400));
  EXPECT_EQ(At(0x200), "near");
  EXPECT_EQ(At(0x344), "-");
  EXPECT_EQ(At(0x345), "far");
  EXPECT_EQ(At(0x345 + 0x7f), "far");
  EXPECT_EQ(At(0x345 + 0x80), "-");
}

TEST_F(NamesTest, DebugFileHasSymbolsOfSectionsWithoutBytes) {
  ElfBuilder builder;
  builder.Load(0, 0x11000, 0, 0x1000);
  builder.Section(SHT_NOBITS, SHF_ALLOC | SHF_EXECINSTR, 0x11200, 0x200, 0x100);
  builder.Symbol("function", 0x11210, 0x10, 1).Symbol("greedy", 0x112f0, 0x100, 1);
  const std::string bytes = builder.Build();
  const SpanByteSource source(AsBytes(bytes));
  const auto elf = ElfReader::Open(source);
  ASSERT_TRUE(elf.ok()) << elf.status();
  EXPECT_TRUE(ExecutableSegments(*elf).empty());
  const auto as_program = ReadFunctionSymbols(*elf);
  ASSERT_TRUE(as_program.ok());
  EXPECT_TRUE(as_program->symbols.empty());
  const auto as_debug_file = ReadFunctionSymbols(*elf, {.debug_file = true});
  ASSERT_TRUE(as_debug_file.ok());
  ASSERT_EQ(as_debug_file->symbols.size(), 2U);
  EXPECT_EQ(as_debug_file->symbols[0].start, 0x11210U);
  EXPECT_EQ(as_debug_file->symbols[1].end, 0x11300U) << "the section bounds it";
}

TEST_F(NamesTest, AliasIsChosenByPolicyWhateverTheOrder) {
  for (const bool reverse : {false, true}) {
    ElfBuilder builder = WithText();
    std::vector<std::pair<const char*, unsigned>> aliases = {{"local_name", STB_LOCAL},
                                                             {"wk", STB_WEAK},
                                                             {"__GI_clone", STB_GLOBAL},
                                                             {"clone_long", STB_GLOBAL},
                                                             {"clone", STB_GLOBAL}};
    if (reverse) std::reverse(aliases.begin(), aliases.end());
    for (const auto& [name, binding] : aliases) {
      builder.Symbol(name, 0x11210, 0x10, 1, STT_FUNC, binding);
    }
    Index(builder.Build(0x300));
    EXPECT_EQ(At(0x210), "clone");
    EXPECT_EQ(index_.symbol_count(), 1U);
  }
}

TEST_F(NamesTest, StrippedFileHasNoTable) {
  Index(WithText().BuildIdNote("\x01\x02").Build(0x300));
  EXPECT_EQ(answer_.status, HelperStatus::kOk);
  EXPECT_FALSE(index_.has_table());
  EXPECT_EQ(index_.id().ToHex(), "0102");
  EXPECT_FALSE(index_.has_pseudo_id());
}

TEST_F(NamesTest, FileWithoutBuildIdGetsAMarkedPseudoIdOfItsBytes) {
  ElfBuilder builder = WithText();
  Index(builder.Build(0x300));
  EXPECT_TRUE(index_.has_pseudo_id());
  EXPECT_EQ(index_.id().size, 16);
  const BuildId first = index_.id();
  builder.Symbol("f", 0x11210, 1, 1);
  Index(builder.Build(0x300));
  EXPECT_NE(index_.id(), first);
}

TEST_F(NamesTest, NameOfHostileBytesIsMadePrintable) {
  ElfBuilder builder = WithText();
  builder.Symbol("evil\x1b[31m\xff\n", 0x11210, 0x10, 1);
  Index(builder.Build(0x300));
  EXPECT_EQ(At(0x210), "evil?[31m??");
}

TEST_F(NamesTest, DynsymAloneNamesWhatItHas) {
  ElfBuilder builder = WithText();
  builder.Symbol("exported", 0x11210, 0x10, 1).table_type = SHT_DYNSYM;
  Index(builder.Build(0x300));
  EXPECT_EQ(At(0x210), "exported");
  EXPECT_EQ(At(0x220), "-") << "a static function that was stripped";
}

TEST_F(NamesTest, StringTableThatIsNoneIsRefused) {
  ElfBuilder builder = WithText();
  builder.Symbol("f", 0x11210, 0x10, 1);
  std::string bytes = builder.Build(0x300);
  // sh_link of the symbol table, the second section from the end.
  const Elf64_Word link = 77;
  std::memcpy(bytes.data() + bytes.size() - 2 * sizeof(Elf64_Shdr) + offsetof(Elf64_Shdr, sh_link),
              &link, sizeof(link));
  Index(bytes);
  EXPECT_EQ(answer_.status, HelperStatus::kRefused);
  EXPECT_STREQ(answer_.reason, "symbol table links to section 77, which holds no strings");
}

}  // namespace
}  // namespace firewatch::symbolizer
