// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/elf/elf_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "symbolizer/elf/inflate.h"
#include "symbolizer/elf/named_sections_for_test.h"
#include "symbolizer/testing/tools_for_test.h"

namespace firewatch::symbolizer {
namespace {

using testing::HasSubstr;

constexpr uint32_t kZlibType = 1;
constexpr uint32_t kZstdType = 2;

std::vector<std::byte> ToBytes(std::string_view text) {
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  return {data, data + text.size()};
}
std::string ToText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string Zlib(std::string_view text) {
  uLongf size = ::compressBound(text.size());
  std::string packed(size, '\0');
  EXPECT_EQ(::compress(reinterpret_cast<Bytef*>(packed.data()), &size,
                       reinterpret_cast<const Bytef*>(text.data()), text.size()),
            Z_OK);
  packed.resize(size);
  return packed;
}
std::string Zstd(std::string_view text) {
  std::string packed(::ZSTD_compressBound(text.size()), '\0');
  packed.resize(::ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 3));
  return packed;
}

// 1 MB of text that is not all alike: several pieces of inflation.
std::string LongText() {
  std::string text;
  for (int i = 0; text.size() < (size_t{1} << 20); ++i) text += std::to_string(i * 7919) + ' ';
  return text;
}

struct TestFile {
  explicit TestFile(const std::vector<NamedSection>& sections, uint64_t max_inflated = 64 << 20)
      : scratch(-1, max_inflated) {
    auto opened = ElfFile::FromBytes(ToBytes(ElfOfSections(sections)), {}, scratch);
    EXPECT_TRUE(opened.ok()) << base::ToString(opened.status());
    file = *std::move(opened);
  }
  // The section's bytes, or why not.
  std::string Section(std::string_view name) {
    const auto bytes = file->Section(name);
    return bytes.ok() ? ToText(*bytes) : base::ToString(bytes.status());
  }
  ScratchFile scratch;
  std::unique_ptr<ElfFile> file;
};

TEST(ElfFileTest, PlainSectionIsGivenAsItIs) {
  TestFile test({{.name = ".debug_str", .content = "names"}});
  EXPECT_TRUE(test.file->Has(".debug_str"));
  EXPECT_EQ(test.Section(".debug_str"), "names");
  EXPECT_EQ(test.scratch.used_bytes(), 0U);
}

TEST(ElfFileTest, MissingEmptyAndNobitsSectionsAreEmpty) {
  TestFile test({{.name = ".debug_line", .content = ""},
                 {.name = ".debug_info", .type = SHT_NOBITS, .claimed_bytes = 100}});
  for (const char* name : {".debug_str", ".debug_line", ".debug_info"}) {
    EXPECT_FALSE(test.file->Has(name));
    EXPECT_EQ(test.Section(name), "");
  }
}

TEST(ElfFileTest, ZlibZstdAndOldFormInflateToTheSame) {
  const std::string text = LongText();
  std::string old_form = "ZLIB";
  for (int shift = 56; shift >= 0; shift -= 8) {
    old_form += static_cast<char>(text.size() >> shift & 0xff);
  }
  TestFile test({{.name = ".debug_info",
                  .content = CompressedContent(kZlibType, text.size(), Zlib(text)),
                  .flags = SHF_COMPRESSED},
                 {.name = ".debug_line",
                  .content = CompressedContent(kZstdType, text.size(), Zstd(text)),
                  .flags = SHF_COMPRESSED},
                 {.name = ".zdebug_str", .content = old_form + Zlib(text)}});
  for (const char* name : {".debug_info", ".debug_line", ".debug_str"}) {
    EXPECT_TRUE(test.file->Has(name));
    EXPECT_TRUE(test.Section(name) == text) << name << ": " << test.Section(name).substr(0, 200);
  }
}

TEST(ElfFileTest, OnlyWhatIsAskedForIsInflatedAndOnlyOnce) {
  const std::string text = LongText();
  const std::string content = CompressedContent(kZlibType, text.size(), Zlib(text));
  TestFile test({{.name = ".debug_info", .content = content, .flags = SHF_COMPRESSED},
                 {.name = ".debug_loc", .content = content, .flags = SHF_COMPRESSED}});
  EXPECT_TRUE(test.file->Has(".debug_info"));
  EXPECT_EQ(test.scratch.used_bytes(), 0U);
  const auto first = test.file->Section(".debug_info");
  const auto again = test.file->Section(".debug_info");
  ASSERT_TRUE(first.ok() && again.ok());
  EXPECT_EQ(first->data(), again->data());
  EXPECT_LE(test.scratch.used_bytes(), text.size() + 4096);
}

TEST(ElfFileTest, SizesThatAreLiesAreErrors) {
  const std::string text = LongText();
  for (const uint64_t lie : {text.size() - 1, text.size() + 1, size_t{1}}) {
    TestFile test({{.name = ".debug_info",
                    .content = CompressedContent(kZlibType, lie, Zlib(text)),
                    .flags = SHF_COMPRESSED},
                   {.name = ".debug_line",
                    .content = CompressedContent(kZstdType, lie, Zstd(text)),
                    .flags = SHF_COMPRESSED}});
    EXPECT_THAT(test.Section(".debug_info"),
                HasSubstr("DATA_LOSS: .debug_info: a section inflates"));
    EXPECT_THAT(test.Section(".debug_line"),
                HasSubstr("DATA_LOSS: .debug_line: a section inflates"));
  }
}

TEST(ElfFileTest, CutAndDamagedStreamsAreErrors) {
  const std::string text = LongText();
  const std::string zlib = Zlib(text);
  const std::string zstd = Zstd(text);
  TestFile test({{.name = ".debug_info",
                  .content = CompressedContent(kZlibType, text.size(),
                                               std::string_view(zlib).substr(0, zlib.size() / 2)),
                  .flags = SHF_COMPRESSED},
                 {.name = ".debug_line",
                  .content = CompressedContent(kZstdType, text.size(),
                                               std::string_view(zstd).substr(0, zstd.size() / 2)),
                  .flags = SHF_COMPRESSED},
                 {.name = ".debug_str",
                  .content = CompressedContent(kZlibType, 100, "this is no stream"),
                  .flags = SHF_COMPRESSED},
                 {.name = ".debug_abbrev",
                  .content = CompressedContent(kZstdType, 100, "this is no stream"),
                  .flags = SHF_COMPRESSED},
                 {.name = ".debug_addr", .content = "short", .flags = SHF_COMPRESSED},
                 {.name = ".debug_ranges",
                  .content = CompressedContent(77, 100, "what"),
                  .flags = SHF_COMPRESSED},
                 {.name = ".zdebug_aranges", .content = "BZIP"}});
  EXPECT_THAT(test.Section(".debug_info"), HasSubstr("DATA_LOSS"));
  EXPECT_THAT(test.Section(".debug_line"), HasSubstr("DATA_LOSS"));
  EXPECT_THAT(test.Section(".debug_str"), HasSubstr("DATA_LOSS"));
  EXPECT_THAT(test.Section(".debug_abbrev"), HasSubstr("DATA_LOSS"));
  EXPECT_THAT(test.Section(".debug_addr"), HasSubstr("too short"));
  EXPECT_THAT(test.Section(".debug_ranges"), HasSubstr("compressed in way 77"));
  EXPECT_THAT(test.Section(".debug_aranges"), HasSubstr("without its mark"));
}

TEST(ElfFileTest, BombIsRefusedBeforeAnythingIsInflated) {
  const std::string text(size_t{8} << 20, 'x');
  TestFile test({{.name = ".debug_info",
                  .content = CompressedContent(kZlibType, uint64_t{1} << 62, Zlib(text)),
                  .flags = SHF_COMPRESSED},
                 {.name = ".debug_str",
                  .content = CompressedContent(kZlibType, text.size(), Zlib(text)),
                  .flags = SHF_COMPRESSED}},
                1 << 20);
  EXPECT_THAT(test.Section(".debug_info"), HasSubstr("RESOURCE_EXHAUSTED"));
  EXPECT_THAT(test.Section(".debug_str"), HasSubstr("RESOURCE_EXHAUSTED"));
  EXPECT_EQ(test.scratch.used_bytes(), 0U);
}

TEST(ElfFileTest, SectionPastTheEndIsRefusedNotMapped) {
  const ToolFolder folder;
  folder.Write(
      "elf",
      ElfOfSections({{.name = ".debug_info", .content = "x", .claimed_bytes = uint64_t{1} << 40}}));
  const base::UniqueFd fd = folder.Open("elf");
  ScratchFile scratch(-1, 1 << 20);
  auto file = ElfFile::Open(fd.get(), {}, scratch);
  ASSERT_TRUE(file.ok());
  const auto bytes = (*file)->Section(".debug_info");
  EXPECT_EQ(bytes.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(base::ToString(bytes.status()), HasSubstr("past the end of the file"));
}

TEST(ElfFileTest, SectionsOfAFileAreMappedAtAnyOffset) {
  const ToolFolder folder;
  const std::string padding(5001, 'p');
  folder.Write("elf",
               ElfOfSections({{.name = ".debug_abbrev", .content = padding},
                              {.name = ".debug_info", .content = "in the middle of a page"}}));
  const base::UniqueFd fd = folder.Open("elf");
  ScratchFile scratch(-1, 1 << 20);
  auto file = ElfFile::Open(fd.get(), {}, scratch);
  ASSERT_TRUE(file.ok());
  const auto bytes = (*file)->Section(".debug_info");
  ASSERT_TRUE(bytes.ok());
  EXPECT_EQ(ToText(*bytes), "in the middle of a page");
  const std::string whole = folder.Read("elf");
  EXPECT_EQ((*file)->Crc().value(), ::crc32(0, reinterpret_cast<const Bytef*>(whole.data()),
                                            static_cast<uInt>(whole.size())));
}

TEST(ElfFileTest, WhatToolsCompressIsInflated) {
  SKIP_WITHOUT_TOOL("objcopy");
  SKIP_WITHOUT_TOOL("gcc");
  const ToolFolder folder;
  folder.Write("a.c", "int Function(int x) { return x + 1; }\n");
  folder.Run("gcc -g -shared -fPIC -o plain a.c");
  std::vector<std::string> forms = {"zlib", "zlib-gnu"};
  folder.Run("objcopy --compress-debug-sections=zlib plain zlib");
  folder.Run("objcopy --compress-debug-sections=zlib-gnu plain zlib-gnu");
  if (HaveTool("llvm-objcopy-19")) {
    folder.Run("llvm-objcopy-19 --compress-debug-sections=zstd plain zstd");
    forms.push_back("zstd");
  }
  ScratchFile scratch(-1, 64 << 20);
  auto plain = ElfFile::FromBytes(folder.Bytes("plain"), {}, scratch);
  ASSERT_TRUE(plain.ok());
  for (const std::string& form : forms) {
    const uint64_t before = scratch.used_bytes();
    auto packed = ElfFile::FromBytes(folder.Bytes(form), {}, scratch);
    ASSERT_TRUE(packed.ok());
    for (const char* name : {".debug_info", ".debug_str", ".debug_line", ".debug_abbrev"}) {
      const auto expected = (*plain)->Section(name);
      const auto found = (*packed)->Section(name);
      ASSERT_TRUE(expected.ok() && found.ok()) << form << base::ToString(found.status());
      EXPECT_FALSE(found->empty()) << name;
      EXPECT_EQ(ToText(*found), ToText(*expected)) << form << name;
    }
    EXPECT_GT(scratch.used_bytes(), before) << form << ": nothing was compressed";
  }
}

TEST(ScratchFileTest, BlocksArePutWhileAnotherIsOpen) {
  const base::UniqueFd fd = EmptyFile();
  ScratchFile scratch(fd.get(), 64 << 10);
  ASSERT_TRUE(scratch.on_disk());
  ASSERT_TRUE(scratch.Begin(5000).ok());
  ASSERT_TRUE(scratch.Write(ToBytes(std::string(2000, 'a'))).ok());
  const auto first = scratch.Put(ToBytes(std::string(5000, 'x')));
  ASSERT_TRUE(first.ok()) << base::ToString(first.status());
  ASSERT_TRUE(scratch.Write(ToBytes(std::string(3000, 'b'))).ok());
  const auto open = scratch.End();
  ASSERT_TRUE(open.ok());
  const auto second = scratch.Put(ToBytes("y"));
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(ToText(*open), std::string(2000, 'a') + std::string(3000, 'b'));
  EXPECT_EQ(ToText(*first), std::string(5000, 'x'));
  EXPECT_EQ(ToText(*second), "y");
  EXPECT_EQ(scratch.used_bytes(), 8192U);  // of sections

  // What was damaged takes no room: else many such would fill the disk.
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(scratch.Begin(40 << 10).ok()) << i;
    EXPECT_EQ(scratch.End().status().code(), absl::StatusCode::kDataLoss);
  }
  // Also where something stands behind it.
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(scratch.Begin(40 << 10).ok()) << i;
    ASSERT_TRUE(scratch.Put(ToBytes("z")).ok());
    EXPECT_EQ(scratch.End().status().code(), absl::StatusCode::kDataLoss);
  }
  EXPECT_EQ(scratch.Begin(100 << 10).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ToText(*first), std::string(5000, 'x'));
}

TEST(ScratchFileTest, NothingIsPutIntoMemory) {
  ScratchFile scratch(-1, 1 << 20);
  EXPECT_FALSE(scratch.on_disk());
  EXPECT_EQ(scratch.Put(ToBytes("x")).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(ElfFileTest, XzIsUnpackedWithinItsLimit) {
  SKIP_WITHOUT_TOOL("xz");
  const ToolFolder folder;
  const std::string text = LongText();
  folder.Write("text", text);
  folder.Run("xz -k text");
  const auto packed = folder.Bytes("text.xz");
  const auto unpacked = InflateXz(packed, 64 << 20);
  ASSERT_TRUE(unpacked.ok()) << base::ToString(unpacked.status());
  EXPECT_TRUE(ToText(*unpacked) == text);
  EXPECT_EQ(InflateXz(packed, 1 << 19).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(InflateXz(std::span(packed).first(packed.size() - 20), 64 << 20).status().code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(InflateXz(ToBytes(text), 64 << 20).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(InflateXz({}, 64 << 20).status().code(), absl::StatusCode::kDataLoss);
}

TEST(DebugLinkTest, NameAndSumAreRead) {
  using namespace std::string_literals;
  const auto link = ParseDebugLink(ToBytes("x.debug\0\x01\x02\x03\x04"s));
  ASSERT_TRUE(link.has_value());
  EXPECT_EQ(link->name, "x.debug");
  EXPECT_EQ(link->crc, 0x04030201U);
  const auto padded = ParseDebugLink(ToBytes("ab.debug\0\0\0\0\x01\x02\x03\x04"s));
  ASSERT_TRUE(padded.has_value());
  EXPECT_EQ(padded->crc, 0x04030201U);
}

TEST(DebugLinkTest, NamesThatAreNoPlainFileNamesAreRefused) {
  using namespace std::string_literals;
  for (const std::string& bad :
       {""s, "x.debug"s, "x.debug\0"s, "x.debug\0\x01\x02\x03"s, "\0\0\0\0\x01\x02\x03\x04"s,
        "../../etc/passwd\0\0\0\0\x01\x02\x03\x04"s, "..\0\0\x01\x02\x03\x04"s,
        std::string(10000, 'x')}) {
    EXPECT_FALSE(ParseDebugLink(ToBytes(bad)).has_value()) << bad;
  }
}

TEST(AltLinkTest, PathAndIdAreRead) {
  using namespace std::string_literals;
  const auto link = ParseAltLink(ToBytes("../.dwz/x.debug\0\xab\xcd"s));
  ASSERT_TRUE(link.has_value());
  EXPECT_EQ(link->path, "../.dwz/x.debug");
  EXPECT_EQ(link->id.ToHex(), "abcd");
  const auto longer = ParseAltLink(ToBytes("/x\0"s + std::string(64, '\x11')));
  ASSERT_TRUE(longer.has_value());
  EXPECT_EQ(longer->id.size, 20);
  for (const std::string& bad : {""s, "\0"s, "name"s, "name\0"s, "\0\xab"s}) {
    EXPECT_FALSE(ParseAltLink(ToBytes(bad)).has_value()) << bad;
  }
}

}  // namespace
}  // namespace firewatch::symbolizer
