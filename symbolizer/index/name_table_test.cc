// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/name_table.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "symbolizer/index/index_format.h"
#include "symbolizer/index/name_cache.h"

namespace firewatch::symbolizer {
namespace {

TEST(NameTableBuilderTest, IdsAreDenseAndInOrderOfFirstIntern) {
  NameTableBuilder names;
  EXPECT_EQ(names.Intern(""), 0U);
  EXPECT_EQ(names.Intern("b"), 1U);
  EXPECT_EQ(names.Intern("a"), 2U);
  EXPECT_EQ(names.Intern("b"), 1U);
  std::string gone = "copied";
  EXPECT_EQ(names.InternCopy(gone), 3U);
  gone.assign(gone.size(), '!');
  EXPECT_EQ(names.Intern("copied"), 3U);
  EXPECT_EQ(names.NameOf(3), "copied");
  EXPECT_EQ(names.size(), 4U);
}

// The builder keeps 32 bits of each name's hash.
TEST(NameTableBuilderTest, NamesWithOneHashAreTwoNames) {
  std::unordered_map<uint32_t, std::string> name_of_hash;
  std::string a, b;
  for (int i = 0; a.empty() && i < 2'000'000; ++i) {  // 80,000 are enough, on average
    const std::string name = fmt::format("name_{}", i);
    const auto [known, added] =
        name_of_hash.try_emplace(static_cast<uint32_t>(base::Hash64(name)), name);
    if (!added) std::tie(a, b) = std::tie(known->second, name);
  }
  ASSERT_NE(a, b);
  NameTableBuilder names;
  EXPECT_EQ(names.Intern(a), 1U);
  EXPECT_EQ(names.InternCopy(b), 2U);
  EXPECT_EQ(names.Intern(a), 1U);
  EXPECT_EQ(names.Intern(b), 2U);
  EXPECT_EQ(names.NameOf(1), a);
  EXPECT_EQ(names.NameOf(2), b);
}

TEST(NameTableBuilderTest, AHundredThousandNamesAreFoundAgain) {
  constexpr uint32_t kCount = 100'000;
  NameTableBuilder names;
  for (int round = 0; round < 2; ++round) {
    for (uint32_t i = 0; i < kCount; ++i) {
      ASSERT_EQ(names.InternCopy(fmt::format("_ZN4some5space{}E", i)), i + 1);
    }
  }
  EXPECT_EQ(names.size(), kCount + 1);
}

TEST(NameTableBuilderTest, HugeNamesAreCut) {
  NameTableBuilder names;
  const std::string huge(kMaxNameBytes + 100, 'x');
  const uint32_t id = names.Intern(huge);
  EXPECT_EQ(names.NameOf(id).size(), kMaxNameBytes);
  EXPECT_EQ(names.InternCopy(huge), id);
}

std::vector<std::byte> Write(const NameTableBuilder& names, const NameTableOptions& options = {}) {
  auto section = WriteNames(names, options);
  EXPECT_TRUE(section.ok()) << section.status();
  return section.ok() ? *std::move(section) : std::vector<std::byte>();
}

struct Names {
  std::string linkage;
  std::string display;
};
Names Read(const std::vector<std::byte>& section, uint32_t id) {
  Names names;
  const auto table = NameTable::Parse(section, 1);
  EXPECT_TRUE(table.ok()) << table.status();
  EXPECT_TRUE(NameReader().Read(*table, id, &names.linkage, &names.display)) << id;
  return names;
}

TEST(NameTableTest, BothNamesComeBackWhateverTheBlock) {
  std::vector<std::string> texts;
  for (int i = 0; i < 20'000; ++i) {
    // Demangles to space0::function0(int).
    const std::string space = "space" + std::to_string(i % 97);
    const std::string function = "function" + std::to_string(i);
    texts.push_back(fmt::format("_ZN{}{}{}{}Ei", space.size(), space, function.size(), function));
  }
  NameTableBuilder names;
  for (const std::string& text : texts) names.Intern(text);
  const std::vector<std::byte> section = Write(names);
  EXPECT_LT(section.size(), 20'000U * 12) << "25 bytes as they are, and as many demangled";
  EXPECT_EQ(section, Write(names, {.threads = 3}));
  const auto table = NameTable::Parse(section, 1);
  ASSERT_TRUE(table.ok());
  ASSERT_EQ(table->count(), 20'001U);
  NameReader reader;
  std::string linkage, display;
  for (uint32_t id = 1; id <= 20'000; id += 7) {
    ASSERT_TRUE(reader.Read(*table, id, &linkage, &display));
    EXPECT_EQ(linkage, texts[id - 1]);
    EXPECT_EQ(display, fmt::format("space{}::function{}(int)", (id - 1) % 97, id - 1));
  }
  EXPECT_FALSE(reader.Read(*table, 20'001, &linkage, &display));
  EXPECT_EQ(linkage + display, "");
}

// They are sorted some bytes at a time: by beginnings of any length that many share, with ends
// inside and zeros in them.
TEST(NameTableTest, NamesStandInOrderOfTheirBytes) {
  std::vector<std::string> texts = {""};
  for (const size_t shared : {1u, 7u, 8u, 9u, 300u}) {
    for (int i = 0; i < 40; ++i) {
      const std::string beginning(shared, static_cast<char>('a' + i % 3));
      texts.push_back(beginning + std::string(static_cast<size_t>(i % 5), '\0') + "\xff" +
                      std::to_string(i));
    }
    for (size_t zeros = 0; zeros < 20; ++zeros) {
      texts.push_back(std::string(shared, 'x') + std::string(zeros, '\0'));
    }
  }
  NameTableBuilder names;
  for (size_t i = 0; i < texts.size(); ++i) names.InternCopy(texts[i * 11 % texts.size()]);
  ASSERT_EQ(names.size(), texts.size()) << "all differ, and 11 does not divide their number";
  const std::vector<std::byte> section = Write(names);

  std::sort(texts.begin(), texts.end());
  NamesHeader header;
  std::memcpy(&header, section.data(), sizeof(header));
  const std::byte* const places =
      section.data() + sizeof(NamesHeader) + (header.block_count + 1) * sizeof(NamesBlockEntry);
  for (uint32_t id = 0; id < names.size(); ++id) {
    uint32_t place = 0;
    std::memcpy(&place, places + id * NamePlaceBytes(header.count), NamePlaceBytes(header.count));
    ASSERT_LT(place, texts.size());
    EXPECT_EQ(texts[place], names.NameOf(id)) << id;
  }
}

TEST(NameTableTest, WhatIsShown) {
  const std::pair<const char*, const char*> kCases[] = {{"main", "main"},
                                                        {"_Z3foov.cold", "foo()"},
                                                        {"foo.part.0.cold", "foo"},
                                                        {"memcpy@@GLIBC_2.14", "memcpy"},
                                                        {"_Z3barv@plt", "_Z3barv@plt"},
                                                        {"_RNvC6_123foo3bar", "123foo::bar"},
                                                        {"/src/foo.cold", "/src/foo.cold"},
                                                        {"$s4main3fooyyF", "$s4main3fooyyF"},
                                                        {"evil\x1b[31m\xff", "evil?[31m?"}};
  NameTableBuilder names;
  for (const auto& [linkage, display] : kCases) names.Intern(linkage);
  const std::vector<std::byte> section = Write(names);
  uint32_t id = 1;
  for (const auto& [linkage, display] : kCases) EXPECT_EQ(Read(section, id++).display, display);
  EXPECT_EQ(Read(section, 2).linkage, "_Z3foov.cold");
  EXPECT_EQ(Read(section, 9).linkage, "evil?[31m?");
}

TEST(NameTableTest, ReaderTellsTablesApart) {
  NameTableBuilder first, second;
  first.Intern("first");
  second.Intern("second");
  const auto first_bytes = Write(first);
  const auto second_bytes = Write(second);
  const auto first_table = NameTable::Parse(first_bytes, 1);
  const auto second_table = NameTable::Parse(second_bytes, 2);
  ASSERT_TRUE(first_table.ok() && second_table.ok());
  NameReader reader;
  std::string name;
  for (int i = 0; i < 4; ++i) {
    if (i == 2) reader = NameReader(1);  // each read drops the other's block
    EXPECT_TRUE(reader.Read(*first_table, 1, &name, nullptr));
    EXPECT_EQ(name, "first");
    EXPECT_TRUE(reader.Read(*second_table, 1, nullptr, &name));
    EXPECT_EQ(name, "second");
  }
}

TEST(NameTableTest, CacheKeepsNamesUntilItIsCleared) {
  NameTableBuilder names;
  names.Intern("_Z3fooi");
  names.Intern("plain");
  const auto section = Write(names);
  const auto table = NameTable::Parse(section, 1);
  ASSERT_TRUE(table.ok());
  NameReader reader;
  NameCache cache;
  const NameCache::Names foo = cache.Get(*table, 1, reader);
  for (uint32_t id = 2; id < 5000; ++id) cache.Get(*table, id, reader);
  EXPECT_EQ(foo.linkage, "_Z3fooi");
  EXPECT_EQ(foo.display, "foo(int)");
  EXPECT_EQ(cache.Get(*table, 2, reader).display, "plain");
  EXPECT_EQ(cache.Get(*table, 3, reader).display, "") << "no such name";
  EXPECT_EQ(cache.Get(*table, 1, reader).linkage.data(), foo.linkage.data());
  EXPECT_GT(cache.bytes(), 5000U * 64);
  cache.Clear();
  EXPECT_EQ(cache.bytes(), 0U);
}

TEST(NameTableTest, BlockThatUnpacksToTooMuchIsDamaged) {
  const std::string zeros(kMaxNamesBlockBytes + 1, '\0');
  std::string packed(ZSTD_compressBound(zeros.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), zeros.data(), zeros.size(), 1));
  const NamesHeader header{.count = 1, .block_count = 1};
  const NamesBlockEntry entries[] = {
      {.first_place = 0, .offset = 27},
      {.first_place = 1, .offset = static_cast<uint32_t>(27 + packed.size())}};
  std::string section(27, '\0');
  std::memcpy(section.data(), &header, sizeof(header));
  std::memcpy(section.data() + sizeof(header), entries, sizeof(entries));
  section += packed;
  const auto table = NameTable::Parse(std::as_bytes(std::span<const char>(section)), 1);
  ASSERT_TRUE(table.ok()) << table.status();
  std::string name = "x";
  EXPECT_FALSE(NameReader().Read(*table, 0, &name, nullptr));
  EXPECT_EQ(name, "");
}

}  // namespace
}  // namespace firewatch::symbolizer
