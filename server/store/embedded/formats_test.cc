// SPDX-License-Identifier: Apache-2.0
// Keys, rows and blocks: what is written reads back, sorts as it must, and damage is noticed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "base/status.h"
#include "server/store/embedded/block.h"
#include "server/store/embedded/bytes.h"
#include "server/store/embedded/connections_row.h"
#include "server/store/embedded/keys.h"
#include "server/store/embedded/rows.h"
#include "server/store/tenant.h"
#include "server/store/test_windows.h"

namespace firewatch::server {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(BytesTest, VarintsOfAllSizesReadBack) {
  for (const uint64_t value : {uint64_t{0}, uint64_t{127}, uint64_t{128}, uint64_t{1} << 35,
                               uint64_t{1} << 63, UINT64_MAX}) {
    std::string bytes;
    PutVarint(bytes, value);
    ByteReader reader(bytes);
    EXPECT_EQ(reader.Varint(), value);
    EXPECT_TRUE(reader.Complete());
  }
  for (const int64_t value : {int64_t{0}, int64_t{-1}, INT64_MIN, INT64_MAX}) {
    std::string bytes;
    PutSigned(bytes, value);
    ByteReader reader(bytes);
    EXPECT_EQ(reader.Signed(), value);
  }
}

TEST(BytesTest, ReaderFailsAtTheEndAndStaysFailed) {
  ByteReader truncated("\x80");
  EXPECT_EQ(truncated.Varint(), 0U);
  EXPECT_TRUE(truncated.failed());
  EXPECT_EQ(truncated.BigEndian<uint32_t>(), 0U);
  ByteReader too_long("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02");
  too_long.Varint();
  EXPECT_TRUE(too_long.failed());
  ByteReader string_past_end(
      "\x05"
      "abc");
  EXPECT_EQ(string_past_end.String(), "");
  EXPECT_TRUE(string_past_end.failed());
}

TEST(TenantTest, NamesAreShortAndPlain) {
  EXPECT_TRUE(IsValidTenant("default"));
  EXPECT_TRUE(IsValidTenant("A-b_c.9"));
  EXPECT_FALSE(IsValidTenant(""));
  EXPECT_FALSE(IsValidTenant("a/b"));
  EXPECT_FALSE(IsValidTenant(std::string_view("a\0", 2)));
  EXPECT_TRUE(IsValidTenant(std::string(64, 'a')));
  EXPECT_FALSE(IsValidTenant(std::string(65, 'a')));
}

TEST(KeysTest, OlderHoursSortFirstWhateverTheTenant) {
  EXPECT_LT(KindPrefix({5, "z"}, RowKind::kBlock), HourPrefix(6));
  EXPECT_LT(HourPrefix(6), PartitionPrefix({6, "a"}));
  EXPECT_LT(KindPrefix({6, "a"}, RowKind::kBlock), PartitionPrefix({6, "ab"}));
}

TEST(KeysTest, PartsReadBack) {
  const PartitionKey partition{472'222, "default"};
  const std::string blocks = KindPrefix(partition, RowKind::kBlock);
  const std::string key = BlockKey(blocks, 7, kTestEpochMs, 0x1234);
  EXPECT_EQ(ParsePartition(key), partition);
  const auto block = ParseBlock(blocks, key);
  ASSERT_TRUE(block.has_value());
  EXPECT_EQ(block->series, 7U);
  EXPECT_EQ(block->start_ms, kTestEpochMs);
  const std::string names = KindPrefix(partition, RowKind::kNames);
  const auto parts = ParseNames(names, NamesKey(names, 9, 0x0302));
  ASSERT_TRUE(parts.has_value());
  EXPECT_EQ(parts->location, 9U);
  EXPECT_EQ(parts->score, 0x0302);
  EXPECT_EQ(ParseId(names, IdKey(names, 3)), 3U);
  EXPECT_EQ(ParseWindow(names, WindowKey(names, 42, 1)), 42);
}

TEST(KeysTest, BestNamesSortFirst) {
  EXPECT_LT(NamesKey("x", 1, 0x0200), NamesKey("x", 1, 0x0100));
  EXPECT_LT(NamesKey("x", 1, 0), NamesKey("x", 2, UINT16_MAX));
}

TEST(KeysTest, ForeignKeysDoNotParse) {
  EXPECT_FALSE(ParsePartition("").has_value());
  EXPECT_FALSE(ParsePartition("q").has_value());
  EXPECT_FALSE(ParsePartition("p123").has_value());
  EXPECT_FALSE(ParsePartition("p1234tenant without an end").has_value());
  EXPECT_FALSE(ParseId("abc", "abc12").has_value());
  EXPECT_FALSE(ParseId("abc", "abd1234").has_value());
  EXPECT_FALSE(ParseBlock("abc", "abc1234").has_value());
}

TEST(KeysTest, HoursOutsideOfTheCalendarAreClamped) {
  EXPECT_EQ(HourOf(-1), 0U);
  EXPECT_EQ(HourOf(INT64_MIN), 0U);
  EXPECT_EQ(HourOf(INT64_MAX), UINT32_MAX);
  EXPECT_EQ(HourOf(kPartitionMs * 5 + 1), 5U);
}

TEST(RowsTest, RowsReadBack) {
  const FunctionRow function{.name = "f", .system_name = "_Z1f", .file = "f.cc", .start_line = -3};
  FunctionRow function_read;
  ASSERT_TRUE(function_read.Decode(function.Encode()));
  EXPECT_EQ(function_read.system_name, "_Z1f");
  EXPECT_EQ(function_read.start_line, -3);
  const FunctionRow same{.name = "main", .system_name = "main", .file = ""};
  ASSERT_TRUE(function_read.Decode(same.Encode()));
  EXPECT_EQ(function_read.system_name, "main");
  EXPECT_LT(same.Encode().size(), 10U);

  const MappingRow mapping{.file = "/bin/x",
                           .build_id = "ab",
                           .memory_start = 1,
                           .memory_limit = UINT64_MAX,
                           .file_offset = 3};
  MappingRow mapping_read;
  ASSERT_TRUE(mapping_read.Decode(mapping.Encode()));
  EXPECT_EQ(mapping_read.file, "/bin/x");
  EXPECT_EQ(mapping_read.memory_limit, UINT64_MAX);

  const LocationRow location{.mapping = 2,
                             .address = 0xffff'ffff'8100'0000,
                             .kind = profile::LocationKind::kKernel,
                             .is_folded = true};
  LocationRow location_read;
  ASSERT_TRUE(location_read.Decode(location.Encode()));
  EXPECT_EQ(location_read.mapping, 2U);
  EXPECT_EQ(location_read.address, 0xffff'ffff'8100'0000);
  EXPECT_EQ(location_read.kind, profile::LocationKind::kKernel);
  EXPECT_TRUE(location_read.is_folded);

  std::vector<uint32_t> stack;
  ASSERT_TRUE(DecodeStack(EncodeStack({3, 1, 2, UINT32_MAX}), &stack));
  EXPECT_THAT(stack, ElementsAre(3, 1, 2, UINT32_MAX));
}

TEST(RowsTest, WindowReadsBack) {
  WindowRow row;
  row.end_ms = kTestEpochMs + 10'000;
  row.node = "node-1";
  row.totals = {{.series = 1, .samples = 5, .cpu_ns = 50},
                {.series = 4, .samples = 0, .cpu_ns = 0}};
  row.losses = {{"ring_full", 3}};
  WindowRow read;
  ASSERT_TRUE(read.Decode(kTestEpochMs, row.Encode(kTestEpochMs)));
  EXPECT_EQ(read.end_ms, row.end_ms);
  EXPECT_EQ(read.node, "node-1");
  ASSERT_EQ(read.totals.size(), 2U);
  EXPECT_EQ(read.totals[1].series, 4U);
  EXPECT_EQ(read.totals[0].cpu_ns, 50);
  EXPECT_EQ(read.losses, row.losses);
  EXPECT_TRUE(read.stack_ends.empty());
}

EdgesBySeries Decoded(std::string_view value, uint32_t without = UINT32_MAX) {
  EdgesBySeries read;
  EXPECT_TRUE(DecodeConnections(
      value, [&](uint32_t series) { return series != without; },
      [&](uint32_t series, const ConnectionEdge& edge) { read[series].push_back(edge); }));
  return read;
}

bool Parses(std::string_view value) {
  return DecodeConnections(
      value, [](uint32_t) { return true; }, [](uint32_t, const ConnectionEdge&) {});
}

TEST(RowsTest, ConnectionsReadBackAndWhatIsNotWantedIsSkipped) {
  ConnectionEdge full{.role = ConnectionRole::kAccept, .remote = std::string(16, '\xfe')};
  full.port = 65'535;
  uint64_t value = INT64_MAX;
  for (const auto counter : kConnectionCounters) full.counts.*counter = value--;
  full.living = 1;
  const EdgesBySeries edges = {{3, {MakeTestEdge(1, 80, 2), MakeTestEdge(1, 81, 0)}},
                               {70'000, {full}},
                               {UINT32_MAX - 1, {ConnectionEdge{}}}};
  const std::string row = EncodeConnections(edges);
  EXPECT_EQ(Decoded(row), edges);
  EdgesBySeries others = edges;
  others.erase(70'000);
  EXPECT_EQ(Decoded(row, 70'000), others);
  for (size_t size = 0; size < row.size(); ++size) {
    EXPECT_FALSE(Parses(row.substr(0, size))) << size;
  }
  EXPECT_FALSE(Parses(row + "x"));
}

TEST(RowsTest, ForeignConnectionsDoNotParse) {
  EXPECT_TRUE(Parses(std::string("\1\0\2\1\0", 5)));     // an "other" without counts
  EXPECT_FALSE(Parses(std::string("\1\0\2\0\0", 5)));    // no role
  EXPECT_FALSE(Parses(std::string("\1\0\2\3\0", 5)));    // no such role
  EXPECT_FALSE(Parses(std::string("\1\0\2\x11\0", 5)));  // an unknown bit
  EXPECT_FALSE(
      Parses(std::string("\1\0\7\x0d"
                         "abcd\0\0",
                         10)));  // two addresses
  EXPECT_FALSE(
      Parses(std::string("\1\0\6\x05"
                         "abc\0\0",
                         9)));                                           // an address too short
  EXPECT_FALSE(Parses(std::string("\1\0\4\1\x80\x80\2", 7)));            // an unknown counter
  EXPECT_FALSE(Parses(std::string("\xff\xff\xff\xff\x0f\0", 6)));        // series that do not fit
  EXPECT_FALSE(Parses(std::string("\2\xff\xff\xff\xff\x0f\0\1\0", 9)));  // past 2^32
}

TEST(RowsTest, TruncatedRowsDoNotParse) {
  WindowRow window;
  window.node = "node-1";
  window.totals = {{.series = 1, .samples = 5, .cpu_ns = 50}};
  const std::string whole = window.Encode(0);
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(WindowRow().Decode(0, whole.substr(0, size))) << size;
  }
  const std::string function = FunctionRow{.name = "f", .system_name = "g", .file = "h"}.Encode();
  for (size_t size = 0; size < function.size(); ++size) {
    EXPECT_FALSE(FunctionRow().Decode(function.substr(0, size))) << size;
  }
  EXPECT_FALSE(FunctionRow().Decode(function + "x"));
  // A count that no row could hold allocates nothing.
  EXPECT_FALSE(WindowRow().Decode(0, std::string("\0\0\xff\xff\xff\xff\x0f", 7)));
}

TEST(RowsTest, NamedBeatsBareAndMoreLinesBeatFewer) {
  const auto score = [](int detail) {
    const profile::Profile profile = MakeTestProfile({{.root_first = {"f"}, .detail = detail}});
    return NameScore(profile, profile.locations.front());
  };
  EXPECT_EQ(score(0), 0);
  EXPECT_GT(score(1), score(0));
  EXPECT_GT(score(2), score(1));
  EXPECT_GT(score(3), score(2));
}

TEST(BlockTest, RowsAreSortedAndAddedUp) {
  std::vector<BlockRow> rows = {{.stack = 2, .labels = 0, .samples = 1, .cpu_ns = 10},
                                {.stack = 1, .labels = 1, .samples = 2, .cpu_ns = 20},
                                {.stack = 2, .labels = 0, .samples = 3, .cpu_ns = 30},
                                {.stack = 1, .labels = 0, .samples = 4, .cpu_ns = 40}};
  ASSERT_TRUE(NormalizeRows(rows));
  EXPECT_THAT(rows,
              ElementsAre(BlockRow{1, 0, 4, 40}, BlockRow{1, 1, 2, 20}, BlockRow{2, 0, 4, 40}));
  rows = {{.samples = INT64_MAX}, {.stack = 1, .samples = 1}};
  EXPECT_FALSE(NormalizeRows(rows));
}

std::vector<BlockRow> RandomRows(size_t count, bool labels, bool odd_cpu) {
  std::mt19937 random(7);
  std::vector<BlockRow> rows;
  for (size_t i = 0; i < count; ++i) {
    const int64_t samples = 1 + static_cast<int64_t>(random() % 100);
    rows.push_back({.stack = static_cast<uint32_t>(random() % 5000),
                    .labels = labels ? static_cast<uint32_t>(random() % 8) : 0,
                    .samples = samples,
                    .cpu_ns = samples * 1000 + (odd_cpu ? static_cast<int64_t>(random() % 9) : 0)});
  }
  EXPECT_TRUE(NormalizeRows(rows));
  return rows;
}

TEST(BlockTest, EveryShapeReadsBack) {
  BlockEncoder encoder;
  BlockDecoder decoder;
  for (const size_t count : {0U, 1U, 3U, 1000U}) {
    for (const bool labels : {false, true}) {
      for (const bool odd_cpu : {false, true}) {
        const std::vector<BlockRow> rows = RandomRows(count, labels, odd_cpu);
        BlockHeader header;
        std::vector<BlockRow> read;
        const absl::Status status = decoder.Decode(encoder.Encode(rows, 1000), &header, &read);
        ASSERT_TRUE(status.ok()) << base::ToString(status);
        EXPECT_EQ(read, rows);
        EXPECT_EQ(header.period_ns, 1000);
      }
    }
  }
}

TEST(BlockTest, CpuThatFollowsFromThePeriodCostsNothing) {
  BlockEncoder encoder;
  const std::string with = encoder.Encode(RandomRows(1000, false, true), 1000);
  const std::string without = encoder.Encode(RandomRows(1000, false, false), 1000);
  EXPECT_LT(without.size() * 3, with.size() * 2);
}

TEST(BlockTest, DamageIsNoticed) {
  BlockEncoder encoder;
  BlockDecoder decoder;
  const std::string block = encoder.Encode(RandomRows(200, true, true), 1000);
  BlockHeader header;
  std::vector<BlockRow> rows;
  for (size_t size = 0; size < block.size(); ++size) {
    EXPECT_EQ(decoder.Decode(block.substr(0, size), &header, &rows).code(),
              absl::StatusCode::kDataLoss)
        << size;
  }
  std::string other = block;
  other[0] = 2;
  EXPECT_THAT(std::string(base::Message(decoder.Decode(other, &header, &rows))),
              HasSubstr("version 2"));
}

}  // namespace
}  // namespace firewatch::server
