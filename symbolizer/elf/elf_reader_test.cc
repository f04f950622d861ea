// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/elf/elf_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "base/status.h"
#include "symbolizer/elf/elf_builder_for_test.h"

namespace firewatch::symbolizer {
namespace {

using testing::HasSubstr;

// A file and a reader of it.
struct TestElf {
  explicit TestElf(std::string content, const ElfLimits& limits = {})
      : bytes(std::move(content)),
        source(std::make_unique<SpanByteSource>(AsBytes(bytes))),
        reader(ElfReader::Open(*source, limits)) {}
  std::string bytes;
  std::unique_ptr<SpanByteSource> source;
  absl::StatusOr<ElfReader> reader;
};

std::string ReasonFor(const std::string& content, const ElfLimits& limits = {}) {
  const TestElf elf(content, limits);
  return elf.reader.ok() ? "accepted" : std::string(base::Message(elf.reader.status()));
}

TEST(ElfReaderTest, TextIsNotElf) {
  EXPECT_THAT(ReasonFor("#!/bin/sh\n"), HasSubstr("not an ELF file"));
  EXPECT_THAT(ReasonFor(std::string(100, 'x')), HasSubstr("not an ELF file"));
  EXPECT_THAT(ReasonFor(""), HasSubstr("not an ELF file"));
}

TEST(ElfReaderTest, OtherMachinesAndKindsAreRefusedWithTheReason) {
  ElfBuilder arm;
  arm.header.e_machine = EM_AARCH64;
  EXPECT_EQ(ReasonFor(arm.Build()), "ELF machine 183 is not x86-64");
  ElfBuilder small;
  small.header.e_ident[EI_CLASS] = ELFCLASS32;
  EXPECT_THAT(ReasonFor(small.Build()), HasSubstr("not a 64-bit"));
  ElfBuilder object;
  object.header.e_type = ET_REL;
  EXPECT_THAT(ReasonFor(object.Build()), HasSubstr("neither executable nor shared"));
}

TEST(ElfReaderTest, FileWithoutSectionsHasSegmentsAndNoSymbols) {
  ElfBuilder builder;
  builder.Load(0, 0x1000, 64, 64);
  const TestElf elf(builder.Build());
  ASSERT_TRUE(elf.reader.ok()) << base::ToString(elf.reader.status());
  EXPECT_TRUE(elf.reader->sections().empty());
  EXPECT_EQ(elf.reader->segments().size(), 1U);
}

// The program headers of a real case: two executable segments at different distances, starts in
// the middle of pages, and a .bss whose addresses run over those of the next segment.
TEST(ElfReaderTest, OffsetsAndAddressesOfSeveralSegmentsRoundTrip) {
  ElfBuilder builder;
  builder.Load(0x40, 0x40, 0x25c, 0x25c, PF_R)
      .Load(0x2a0, 0x12a0, 0x1d1, 0x1d1)
      .Load(0x480, 0x2480, 0x190, 0x190000, PF_R | PF_W)
      .Load(0x800, 0x969be40, 0x123, 0x123);
  const TestElf elf(builder.Build(4096));
  ASSERT_TRUE(elf.reader.ok());
  for (const ElfSegment& segment : elf.reader->segments()) {
    for (uint64_t distance = 0; distance < segment.file_size; ++distance) {
      EXPECT_EQ(elf.reader->FileOffsetOf(segment.vaddr + distance), segment.file_offset + distance);
      EXPECT_EQ(elf.reader->VaddrOf(segment.file_offset + distance), segment.vaddr + distance);
    }
  }
  EXPECT_EQ(elf.reader->FileOffsetOf(0x2480 + 0x190), std::nullopt) << ".bss has no bytes";
  EXPECT_EQ(elf.reader->FileOffsetOf(0x129f), std::nullopt);
  EXPECT_EQ(elf.reader->VaddrOf(0x29f), std::nullopt);
  EXPECT_EQ(elf.reader->VaddrOf(0x471), std::nullopt);
  EXPECT_EQ(elf.reader->BytesAfter(0x969be40 + 0x100), 0x23U);
}

TEST(ElfReaderTest, ExecutableSegmentWinsWhereBytesAreMappedTwice) {
  ElfBuilder builder;
  builder.Load(0, 0x400000, 0x100, 0x100, PF_R).Load(0, 0x800000, 0x100, 0x100);
  const TestElf elf(builder.Build(256));
  ASSERT_TRUE(elf.reader.ok());
  EXPECT_EQ(elf.reader->VaddrOf(0x10), 0x800010U);
}

TEST(ElfReaderTest, BuildIdComesFromTheNote) {
  ElfBuilder builder;
  builder.BuildIdNote("\x01\x02\x03\xab");
  const TestElf elf(builder.Build());
  ASSERT_TRUE(elf.reader.ok());
  EXPECT_EQ(elf.reader->build_id().ToHex(), "010203ab");
}

TEST(ElfReaderTest, LongBuildIdIsCutAtTwentyBytes) {
  ElfBuilder builder;
  builder.BuildIdNote(std::string(32, '\x11'));
  const TestElf elf(builder.Build());
  ASSERT_TRUE(elf.reader.ok());
  EXPECT_EQ(elf.reader->build_id().ToHex(), std::string(40, '1'));
}

TEST(ElfReaderTest, NoteThatClaimsMoreThanTheFileIsIgnored) {
  ElfBuilder builder;
  builder.BuildIdNote("\x01\x02\x03\x04");
  std::string bytes = builder.Build();
  Elf64_Nhdr note;
  const size_t at = sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr);
  std::memcpy(&note, bytes.data() + at, sizeof(note));
  note.n_descsz = 0xfffffff0;
  std::memcpy(bytes.data() + at, &note, sizeof(note));
  const TestElf elf(bytes);
  ASSERT_TRUE(elf.reader.ok());
  EXPECT_TRUE(elf.reader->build_id().empty());
}

TEST(ElfReaderTest, HeadersPastTheEndAreRefused) {
  ElfBuilder builder;
  builder.Load(0, 0, 64, 64);
  std::string bytes = builder.Build();
  EXPECT_EQ(ReasonFor(bytes.substr(0, bytes.size() - 1)),
            "1 headers at 64 reach past the end of the file");
  ElfBuilder sections;
  sections.Text(0, 0, 16);
  std::string cut = sections.Build();
  EXPECT_THAT(ReasonFor(cut.substr(0, cut.size() - 1)), HasSubstr("reach past the end"));
}

TEST(ElfReaderTest, SectionCountOutOfSectionZeroIsCapped) {
  ElfBuilder builder;
  builder.sections[0].sh_size = uint64_t{1} << 40;
  builder.Text(0, 0, 16);
  std::string bytes = builder.Build();
  Elf64_Ehdr header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  header.e_shnum = 0;
  std::memcpy(bytes.data(), &header, sizeof(header));
  EXPECT_EQ(ReasonFor(bytes), "1099511627776 sections, 131072 are allowed");
}

TEST(ElfReaderTest, SymbolsOfOddSizeAreRefusedAndOfSizeZeroRead) {
  for (const uint64_t entry_size : {uint64_t{0}, uint64_t{24}, uint64_t{16}, uint64_t{1} << 63}) {
    ElfBuilder builder;
    builder.Symbol("f", 0, 1, 1).entry_size = entry_size;
    const TestElf elf(builder.Build());
    ASSERT_TRUE(elf.reader.ok());
    int count = 0;
    const absl::Status status =
        elf.reader->ForEachSymbol(elf.reader->sections()[1], [&](const ElfSymbol&) { ++count; });
    EXPECT_EQ(status.ok(), entry_size == 0 || entry_size == 24) << entry_size;
    EXPECT_EQ(count, status.ok() ? 2 : 0) << entry_size;
  }
}

TEST(ElfReaderTest, TableThatClaimsMoreThanTheFileIsCutAtItsEnd) {
  ElfBuilder builder;
  builder.Symbol("f", 0, 1, 1).claimed_symbol_bytes = uint64_t{1} << 60;
  builder.claimed_string_bytes = uint64_t{4} << 30;
  const TestElf elf(builder.Build());
  ASSERT_TRUE(elf.reader.ok());
  const ElfSection& table = elf.reader->sections()[1];
  uint64_t count = 0;
  EXPECT_TRUE(elf.reader->ForEachSymbol(table, [&](const ElfSymbol&) { ++count; }).ok());
  EXPECT_LE(count, elf.bytes.size() / 24);
  auto strings = elf.reader->ReadStringsOf(table);
  ASSERT_TRUE(strings.ok());
  EXPECT_LE(strings->bytes().size(), elf.bytes.size());
}

TEST(ElfReaderTest, MoreSymbolsThanAllowedAreRefused) {
  ElfBuilder builder;
  for (int i = 0; i < 10; ++i) builder.Symbol("f", 0, 1, 1);
  const TestElf elf(builder.Build(), {.max_symbols = 10});
  ASSERT_TRUE(elf.reader.ok());
  const absl::Status status =
      elf.reader->ForEachSymbol(elf.reader->sections()[1], [](const ElfSymbol&) {});
  EXPECT_EQ(base::Message(status), "11 symbols, 10 are allowed");
}

TEST(ElfReaderTest, StringsOutsideTheTableAreEmpty) {
  const StringTable strings(std::vector<char>{'\0', 'a', 'b', '\0', 'c'});
  EXPECT_EQ(strings.At(1), "ab");
  EXPECT_EQ(strings.At(2), "b");
  EXPECT_EQ(strings.At(4), "c") << "not terminated: ends with the table";
  EXPECT_EQ(strings.At(5), "");
  EXPECT_EQ(strings.At(UINT32_MAX), "");
}

}  // namespace
}  // namespace firewatch::symbolizer
