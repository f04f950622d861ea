// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/symbol_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "symbolizer/index/index_format.h"
#include "symbolizer/index/index_writer.h"

namespace firewatch::symbolizer {
namespace {

using testing::HasSubstr;

std::string Write(IndexSource source) {
  const base::UniqueFd fd(::memfd_create("index", MFD_CLOEXEC));
  const auto count = WriteSymbolIndex(source, fd.get());
  EXPECT_TRUE(count.ok()) << count.status();
  struct stat info{};
  ::fstat(fd.get(), &info);
  std::string bytes(static_cast<size_t>(info.st_size), '\0');
  EXPECT_EQ(::pread(fd.get(), bytes.data(), bytes.size(), 0), info.st_size);
  return bytes;
}

IndexSource TwoFunctions() {
  IndexSource source;
  source.id = {.bytes = {0xab, 0xcd}, .size = 2};
  source.file_bytes = 777;
  source.groups.push_back("module");
  source.symbols = {{.start = 100, .end = 120, .name = "_Z3fooi"},
                    {.start = 200, .end = 210, .name = "bar", .group = 1}};
  return source;
}

absl::StatusOr<SymbolIndex> Parse(const std::string& bytes) {
  return SymbolIndex::Parse(std::as_bytes(std::span<const char>(bytes)));
}

std::string Reason(const std::string& bytes) {
  const auto index = Parse(bytes);
  return index.ok() ? "accepted" : std::string(base::Message(index.status()));
}

// Makes all checksums right again, as a hostile writer would.
void FixSums(std::string* bytes) {
  IndexHeader header;
  std::memcpy(&header, bytes->data(), sizeof(header));
  const std::string_view body = std::string_view(*bytes).substr(sizeof(header));
  const size_t tables = std::min<size_t>(body.size(), header.symbol_count * kIndexBytesPerSymbol);
  header.tables_xxh3 = base::Hash64(body.substr(0, tables));
  header.pool_xxh3 = base::Hash64(body.substr(tables));
  header.header_xxh3 = base::Hash64(
      std::string_view(reinterpret_cast<const char*>(&header), offsetof(IndexHeader, header_xxh3)));
  std::memcpy(bytes->data(), &header, sizeof(header));
}

template <typename T>
void Poke(std::string* bytes, size_t at, T value) {
  std::memcpy(bytes->data() + at, &value, sizeof(value));
}

constexpr size_t kStarts = sizeof(IndexHeader);
constexpr size_t kDetails = kStarts + 2 * sizeof(uint64_t);
constexpr size_t kPool = kDetails + 2 * sizeof(IndexDetail);

TEST(SymbolIndexTest, FindsBothNamesAndTheGroup) {
  const std::string bytes = Write(TwoFunctions());
  const auto index = Parse(bytes);
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_EQ(index->symbol_count(), 2U);
  EXPECT_EQ(index->file_bytes(), 777U);
  EXPECT_EQ(index->id().ToHex(), "abcd");
  EXPECT_EQ(index->end(), 210U);
  const auto foo = index->Find(119);
  ASSERT_TRUE(foo);
  EXPECT_EQ(foo->name, "foo(int)");
  EXPECT_EQ(foo->system_name, "_Z3fooi");
  EXPECT_EQ(foo->group, "");
  const auto bar = index->Find(200);
  ASSERT_TRUE(bar);
  EXPECT_EQ(bar->name, "bar");
  EXPECT_EQ(bar->name.data(), bar->system_name.data()) << "stored once";
  EXPECT_EQ(bar->group, "module");
}

TEST(SymbolIndexTest, GapsAndEndsAreNotCovered) {
  const std::string bytes = Write(TwoFunctions());
  const auto index = Parse(bytes);
  ASSERT_TRUE(index.ok());
  for (const uint64_t offset :
       {uint64_t{0}, uint64_t{99}, uint64_t{120}, uint64_t{199}, uint64_t{210}, UINT64_MAX}) {
    EXPECT_FALSE(index->Find(offset)) << offset;
  }
}

TEST(SymbolIndexTest, EmptyIndexCoversNothing) {
  const std::string bytes = Write({});
  const auto index = Parse(bytes);
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_FALSE(index->Find(0));
  EXPECT_EQ(index->end(), 0U);
}

TEST(SymbolIndexTest, EqualInputInAnyOrderGivesEqualBytes) {
  IndexSource source = TwoFunctions();
  source.symbols.push_back({.start = 100, .end = 120, .name = "alias", .rank = 4});
  source.symbols.push_back({.start = 130, .end = 140, .name = "_ZN1AC2Ev"});
  source.symbols.push_back({.start = 130, .end = 140, .name = "_ZN1AC1Ev"});
  const std::string expected = Write(source);
  std::mt19937 random(1);
  for (int i = 0; i < 20; ++i) {
    std::shuffle(source.symbols.begin(), source.symbols.end(), random);
    EXPECT_EQ(Write(source), expected);
  }
}

TEST(SymbolIndexTest, EveryChangedByteIsNoticed) {
  const std::string good = Write(TwoFunctions());
  ASSERT_EQ(Reason(good), "accepted");
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x41);
    EXPECT_NE(Reason(bad), "accepted") << "byte " << i;
  }
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_NE(Reason(good.substr(0, size)), "accepted") << size << " bytes";
  }
}

TEST(SymbolIndexTest, HostileIndexWithGoodChecksumsIsRefused) {
  const std::string good = Write(TwoFunctions());
  const auto spoiled = [&](size_t at, auto value) {
    std::string bytes = good;
    Poke(&bytes, at, value);
    FixSums(&bytes);
    return Reason(bytes);
  };
  EXPECT_THAT(spoiled(kStarts, uint64_t{190}), HasSubstr("overlaps"));
  EXPECT_THAT(spoiled(kStarts + 8, UINT64_MAX - 3), HasSubstr("overlaps"));
  EXPECT_THAT(spoiled(kDetails, uint32_t{0}), HasSubstr("is empty"));
  EXPECT_THAT(spoiled(kDetails, uint32_t{101}), HasSubstr("overlaps"));
  EXPECT_THAT(spoiled(kDetails + 4, UINT32_MAX), HasSubstr("outside the pool"));
  EXPECT_THAT(spoiled(kDetails + 8, uint32_t{3}), HasSubstr("outside the pool"));
  EXPECT_THAT(spoiled(kPool, 'x'), HasSubstr("not terminated"));
  EXPECT_THAT(spoiled(good.size() - 1, 'x'), HasSubstr("not terminated"));
  EXPECT_THAT(spoiled(kPool + 2, '\x1b'), HasSubstr("printable"));
  EXPECT_THAT(spoiled(kPool + 2, '\xff'), HasSubstr("printable"));
  EXPECT_THAT(spoiled(offsetof(IndexHeader, symbol_count), uint64_t{3}), HasSubstr("add up"));
  EXPECT_THAT(spoiled(offsetof(IndexHeader, pool_bytes), UINT64_MAX), HasSubstr("add up"));
  EXPECT_THAT(spoiled(offsetof(IndexHeader, id_size), uint8_t{21}), HasSubstr("size of the id"));
}

TEST(SymbolIndexTest, OtherVersionIsRefused) {
  std::string bytes = Write(TwoFunctions());
  Poke(&bytes, offsetof(IndexHeader, version), uint32_t{2});
  EXPECT_EQ(Reason(bytes), "symbol index: version 2, expected 1");
}

TEST(SymbolIndexTest, LongPoolsOfOtherScriptsAreAccepted) {
  IndexSource source;
  std::string name;
  for (int i = 0; i < 100; ++i) name += "größe_名前_";
  source.symbols = {{.start = 1, .end = 2, .name = name}};
  const std::string bytes = Write(source);
  const auto index = Parse(bytes);
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_EQ(index->Find(1)->name, name);
}

}  // namespace
}  // namespace firewatch::symbolizer
