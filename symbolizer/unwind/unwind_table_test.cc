// SPDX-License-Identifier: Apache-2.0
// The table file: what is written is found again, and nothing that is broken gets past Parse.
#include "symbolizer/unwind/unwind_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "base/hash.h"
#include "base/status.h"
#include "symbolizer/unwind/table_format.h"
#include "symbolizer/unwind/table_writer.h"

namespace firewatch::symbolizer {
namespace {

RuleWords Offset(int n) {
  fw_unwind_rule rule;
  std::memset(&rule, 0, sizeof(rule));
  rule.base = FW_REGISTER_RSP;
  rule.cfa = FW_CFA_OFFSET;
  rule.cfa_offset = static_cast<short>(n);
  return WordsOf(rule, {});
}
RuleWords Far(int n) {
  fw_unwind_rule rule;
  std::memset(&rule, 0, sizeof(rule));
  rule.base = FW_REGISTER_RSP;
  rule.cfa = FW_CFA_FAR;
  rule.two_slots = 1;
  fw_rule_slot slot;
  std::memset(&slot, 0, sizeof(slot));
  slot.offset = n;
  return WordsOf(rule, slot);
}

class UnwindTableTest : public testing::Test {
 protected:
  UnwindTableTest() { source_.rules.emplace_back(); }

  uint16_t Rule(const RuleWords& words) {
    source_.rules.push_back(words);
    return static_cast<uint16_t>(source_.rules.size() - 1);
  }
  void Row(uint64_t offset, uint16_t rule) {
    source_.rows.push_back({.offset = offset & ((uint64_t{1} << 40) - 1), .rule = rule});
  }
  absl::StatusOr<UnwindTable> Parse() {
    return UnwindTable::Parse(std::as_bytes(std::span<const char>(bytes_.data(), bytes_.size())));
  }
  void Write() {
    bytes_ = EncodeUnwindTable(source_);
    auto table = Parse();
    ASSERT_TRUE(table.ok()) << base::ToString(table.status());
    table_ = *table;
  }
  int OffsetAt(uint64_t offset) const {
    const auto found = table_.Find(offset);
    if (found.rule.cfa == FW_CFA_NONE) return -1;
    return found.rule.cfa == FW_CFA_FAR ? found.slot.offset : found.rule.cfa_offset;
  }
  // Makes a spoilt table look whole again.
  void Sign() {
    TableHeader header;
    std::memcpy(&header, bytes_.data(), sizeof(header));
    header.body_xxh3 = base::Hash64(std::string_view(bytes_).substr(sizeof(header)));
    header.header_xxh3 = base::Hash64(std::string_view(reinterpret_cast<const char*>(&header),
                                                       offsetof(TableHeader, header_xxh3)));
    std::memcpy(bytes_.data(), &header, sizeof(header));
  }
  template <typename T>
  void Poke(size_t at, T value) {
    std::memcpy(bytes_.data() + at, &value, sizeof(value));
    Sign();
  }
  void ExpectDataLoss() { EXPECT_EQ(Parse().status().code(), absl::StatusCode::kDataLoss); }

  TableSource source_;
  std::string bytes_;
  UnwindTable table_;
};

TEST_F(UnwindTableTest, AddressBeforeFirstRowAndBehindLastHasNoRule) {
  const uint16_t rule = Rule(Offset(8));
  Row(0x5010, rule);
  Row(0x5020, 0);
  Write();
  EXPECT_EQ(OffsetAt(0), -1);
  EXPECT_EQ(OffsetAt(0x500f), -1);
  EXPECT_EQ(OffsetAt(0x5010), 8);
  EXPECT_EQ(OffsetAt(0x501f), 8);
  EXPECT_EQ(OffsetAt(0x5020), -1);
  EXPECT_EQ(OffsetAt(0x7fffffffffff), -1);
  EXPECT_EQ(table_.first_page(), 1U);
  EXPECT_EQ(table_.directory().size(), 1U);
}

TEST_F(UnwindTableTest, RuleReachesIntoTheNextPagesAndEmptyPagesTakeNoBytes) {
  Row(0x3ff0, Rule(Offset(8)));
  Row(0xc010, 0);
  Row(0x40000, Rule(Offset(16)));
  Row(0x40001, 0);
  Write();
  for (const uint64_t offset : {0x3ff0U, 0x4000U, 0x8000U, 0xbfffU, 0xc00fU}) {
    EXPECT_EQ(OffsetAt(offset), 8) << offset;
  }
  EXPECT_EQ(OffsetAt(0xc010), -1);
  EXPECT_EQ(OffsetAt(0x40000), 16);
  EXPECT_EQ(table_.directory()[5].rows, 0);
  EXPECT_TRUE(table_.page(table_.directory()[5]).empty());
}

TEST_F(UnwindTableTest, FrequentRulesStandFirst) {
  const uint16_t rare = Rule(Offset(800));
  const uint16_t common = Rule(Offset(8));
  Row(0, rare);
  for (uint64_t i = 1; i < 10; ++i) Row(i * 16, i % 2 == 0 ? uint16_t{0} : common);
  Row(10 * 16, 0);
  Write();
  EXPECT_EQ(table_.rules()[0].cfa, FW_CFA_NONE);
  EXPECT_EQ(table_.rules()[1].cfa_offset, 8);
  EXPECT_EQ(table_.rules()[2].cfa_offset, 800);
}

TEST_F(UnwindTableTest, RareRulesArePageLocalAndTooManyMakeAPageWide) {
  std::vector<uint16_t> rules;
  for (int i = 0; i < 1000; ++i) rules.push_back(Rule(i % 3 == 0 ? Far(100'000 + i) : Offset(i)));
  // Page 0: 60 rules that are rare; page 1: 500 of them; page 2 uses the first 190 often.
  std::map<uint64_t, uint16_t> rows;
  for (uint64_t i = 0; i < 60; ++i) rows[i * 8] = rules[900 + i];
  for (uint64_t i = 0; i < 500; ++i) rows[0x4000 + i * 8] = rules[400 + i];
  for (uint64_t i = 0; i < 1900; ++i) rows[0x8000 + i * 8] = rules[i % 190];
  for (const auto& [offset, rule] : rows) Row(offset, rule);
  Row(0xc000, 0);
  Write();
  EXPECT_EQ(table_.directory()[0].flags, 0);
  EXPECT_GT(table_.directory()[0].local_rules, 0);
  EXPECT_EQ(table_.directory()[1].flags, FW_PAGE_WIDE);
  EXPECT_EQ(table_.directory()[2].flags, 0);
  for (const auto& [offset, rule] : rows) {
    const RuleWords& words = source_.rules[rule];
    const int expected =
        words.two_slots() ? SlotOf(words.slot).offset : RuleOf(words.rule).cfa_offset;
    ASSERT_EQ(OffsetAt(offset), expected) << offset;
    ASSERT_EQ(OffsetAt(offset + 7), expected) << offset;
  }
}

TEST_F(UnwindTableTest, RowAtEveryByteOfAPage) {
  const uint16_t a = Rule(Offset(8));
  const uint16_t b = Rule(Offset(16));
  for (uint64_t i = 0; i < FW_PAGE_ROWS_MAX; ++i) Row(i, i % 2 == 0 ? a : b);
  Row(FW_PAGE_ROWS_MAX, 0);
  Write();
  EXPECT_EQ(table_.directory()[0].rows, FW_PAGE_ROWS_MAX);
  EXPECT_EQ(OffsetAt(0), 8);
  EXPECT_EQ(OffsetAt(FW_PAGE_ROWS_MAX - 1), 16);
}

TEST_F(UnwindTableTest, MoreRulesThanSlotsLoseTheRarest) {
  for (int i = 0; i < 20'000; ++i) {
    Row(static_cast<uint64_t>(i) * 8, Rule(Far(i)));
    if (i < 10) Row(static_cast<uint64_t>(200'000 + i) * 8, static_cast<uint16_t>(i + 1));
  }
  std::sort(source_.rows.begin(), source_.rows.end(),
            [](const TableRow& x, const TableRow& y) { return x.offset < y.offset; });
  Row(uint64_t{300'000} * 8, 0);
  Write();
  EXPECT_LE(table_.rules().size(), FW_RULE_SLOTS_MAX);
  EXPECT_EQ(OffsetAt(3 * 8), 3);
  EXPECT_EQ(OffsetAt(19'999 * 8), -1);
  const uint64_t kept = (FW_RULE_SLOTS_MAX - 1) / 2;
  EXPECT_EQ(table_.counts().rows_no_rule, 20'000 - kept);
}

TEST_F(UnwindTableTest, PagesPastTheDirectoryAreCountedAsLost) {
  const uint16_t rule = Rule(Offset(8));
  Row(0, rule);
  Row(16, 0);
  Row(uint64_t{kTablePagesMax} << FW_PAGE_SHIFT, rule);
  Row((uint64_t{kTablePagesMax} << FW_PAGE_SHIFT) + 16, 0);
  Write();
  EXPECT_EQ(table_.counts().rows_no_rule, 1U);
  EXPECT_LE(table_.directory().size(), kTablePagesMax);
  EXPECT_EQ(OffsetAt(uint64_t{kTablePagesMax} << FW_PAGE_SHIFT), -1);
}

TEST_F(UnwindTableTest, NothingAtAllIsATableToo) {
  Write();
  EXPECT_EQ(OffsetAt(0), -1);
  EXPECT_EQ(table_.row_count(), 0U);
}

TEST_F(UnwindTableTest, IdAndCountsComeBack) {
  source_.id = BuildId::FromHex("0123456789abcdef");
  source_.counts = {.fdes = 1,
                    .fdes_refused = 2,
                    .rows_read = 3,
                    .rows_merged = 4,
                    .rows_no_rule = 5,
                    .cfi_bytes = 6};
  Write();
  EXPECT_EQ(table_.build_id(), source_.id);
  EXPECT_EQ(table_.counts().fdes_refused, 2U);
  EXPECT_EQ(table_.counts().rows_no_rule, 5U);
  EXPECT_EQ(table_.counts().cfi_bytes, 6U);
}

class SmallTableTest : public UnwindTableTest {
 protected:
  void SetUp() override {
    Row(0x10, Rule(Offset(8)));
    Row(0x20, Rule(Far(99'999)));
    Row(0x30, 0);
    Write();
  }
  static constexpr size_t kRules = sizeof(TableHeader);
  size_t directory() const { return kRules + table_.rules().size_bytes(); }
  size_t page() const { return directory() + table_.directory().size_bytes(); }
};

TEST_F(SmallTableTest, AnyFlippedBitIsFound) {
  const std::string whole = bytes_;
  for (size_t i = 0; i < whole.size() * 8; ++i) {
    bytes_ = whole;
    bytes_[i / 8] = static_cast<char>(bytes_[i / 8] ^ (1 << (i % 8)));
    ASSERT_FALSE(Parse().ok()) << "bit " << i;
  }
}

TEST_F(SmallTableTest, AnyCutIsFound) {
  const std::string whole = bytes_;
  for (size_t size = 0; size < whole.size(); ++size) {
    bytes_ = whole.substr(0, size);
    ASSERT_FALSE(Parse().ok()) << size;
  }
}

// With sound checksums: what a broken builder, or an attacker, could write.
TEST_F(SmallTableTest, DirectoryThatLeavesThePages) {
  fw_page_entry entry;
  std::memcpy(&entry, bytes_.data() + directory(), sizeof(entry));
  entry.location = 0x10000000;
  Poke(directory(), entry);
  ExpectDataLoss();
  entry.location = 0;
  entry.rows = 5000;
  Poke(directory(), entry);
  ExpectDataLoss();
}

TEST_F(SmallTableTest, PlacesOutOfOrderOrOutOfThePage) {
  Poke(page(), uint16_t{1});  // place[0] must be 0
  ExpectDataLoss();
  Poke(page(), uint16_t{0});
  EXPECT_TRUE(Parse().ok());
  Poke(page() + 4, uint16_t{0x10});  // not ascending
  ExpectDataLoss();
  Poke(page() + 4, uint16_t{0x4000});
  ExpectDataLoss();
}

TEST_F(SmallTableTest, RulesThatAreNone) {
  const auto rules = table_.rules();
  size_t far = 0;
  for (size_t i = 0; i < rules.size(); ++i) {
    if (rules[i].cfa == FW_CFA_FAR) far = i;
  }
  const size_t numbers = page() + 2 * size_t{table_.directory()[0].rows};
  Poke(numbers + 1, static_cast<uint8_t>(far + 1));  // the second slot of a rule
  ExpectDataLoss();
  Poke(numbers + 1, uint8_t{100});  // no such slot
  ExpectDataLoss();
  Poke(numbers + 1, uint8_t{FW_DIRECT_RULES});  // no such local rule
  ExpectDataLoss();
  Poke(numbers + 1, uint8_t{0});
  EXPECT_TRUE(Parse().ok());
  Poke(kRules, Offset(8).rule);  // slot 0 must be NONE
  ExpectDataLoss();
  Poke(kRules, uint64_t{0});
  Poke(kRules + 8, uint64_t{0xf0});  // no such kind
  ExpectDataLoss();
}

TEST_F(SmallTableTest, CountsThatDoNotFit) {
  Poke(offsetof(TableHeader, page_count), uint32_t{0xffffffff});
  ExpectDataLoss();
  Poke(offsetof(TableHeader, page_count), uint32_t{1});
  EXPECT_TRUE(Parse().ok());
  Poke(offsetof(TableHeader, rule_slots), uint32_t{0});
  ExpectDataLoss();
  Poke(offsetof(TableHeader, rule_slots), static_cast<uint32_t>(table_.rules().size()));
  Poke(offsetof(TableHeader, version), kTableVersion + 1);
  ExpectDataLoss();
}

}  // namespace
}  // namespace firewatch::symbolizer
