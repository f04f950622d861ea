// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/status.h"
#include "server/query/request_query.h"
#include "server/query/series_groups.h"
#include "server/query/time_range.h"

namespace firewatch::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using transport::HttpRequest;

constexpr int64_t kNow = 1'767'322'245'678;  // 2026-01-02T02:50:45.678Z

HttpRequest Request(std::vector<std::pair<std::string, std::string>> query) {
  return {.method = "GET", .path = "/", .query = std::move(query), .headers = {}, .body = {}};
}

TEST(ParseTimeTest, TakesTheThreeForms) {
  struct Case {
    const char* text;
    int64_t ms;
  };
  for (const Case& c : {Case{"0", 0},
                        Case{"1767322245678", kNow},
                        Case{"now", kNow},
                        Case{"now-15m", kNow - 900'000},
                        Case{"now-250ms", kNow - 250},
                        Case{"now-1s", kNow - 1'000},
                        Case{"now-2h", kNow - 7'200'000},
                        Case{"now-3d", kNow - 259'200'000},
                        Case{"now-1w", kNow - 604'800'000},
                        Case{"now+1h", kNow + 3'600'000},
                        Case{"now 1h", kNow + 3'600'000},
                        Case{"2026-01-02T02:50:45.678Z", kNow},
                        Case{"2026-01-02t02:50:45.6789123z", kNow},
                        Case{"2026-01-02T02:50:45Z", kNow - 678},
                        Case{"2026-01-02T03:50:45.678+01:00", kNow},
                        Case{"2026-01-02T03:50:45.678 01:00", kNow},
                        Case{"2026-01-01T19:20:45.678-07:30", kNow},
                        Case{"1970-01-01T00:00:00Z", 0},
                        Case{"2024-02-29T00:00:00.5Z", 1'709'164'800'500},
                        Case{"9999-12-31T23:59:59.999Z", 253'402'300'799'999}}) {
    const auto time = ParseTime(c.text, kNow);
    ASSERT_TRUE(time.ok()) << c.text << ": " << base::ToString(time.status());
    EXPECT_EQ(*time, c.ms) << c.text;
  }
}

TEST(ParseTimeTest, RefusesEverythingElseInASentence) {
  for (const char* text : {"",
                           "yesterday",
                           "now-",
                           "now-15",
                           "now-15x",
                           "now--15m",
                           "now15m",
                           "15m",
                           "now-1h30m",
                           "1e9",
                           " 1",
                           "1 ",
                           "0x10",
                           "99999999999999999999",
                           "2026-01-02",
                           "2026-01-02T02:50Z",
                           "2026-01-02T02:50:45",
                           "2026-13-01T00:00:00Z",
                           "2026-02-29T00:00:00Z",
                           "2026-01-02T24:00:00Z",
                           "2026-01-02T02:50:45.Z",
                           "2026-01-02T02:50:45+1:00",
                           "2026-01-02T02:50:45+01:00x",
                           "now-99999999999999999w"}) {
    const absl::Status status = ParseTime(text, kNow).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(base::ToString(status), HasSubstr("is not a time")) << text;
  }
}

TEST(ParseTimeTest, RefusesTimesOutsideTheCalendar) {
  EXPECT_THAT(base::ToString(ParseTime("-1", kNow).status()), HasSubstr("before 1970"));
  EXPECT_THAT(base::ToString(ParseTime("now-3000w", kNow).status()), HasSubstr("before 1970"));
  EXPECT_THAT(base::ToString(ParseTime("1969-12-31T23:59:59Z", kNow).status()),
              HasSubstr("before 1970"));
  // Unix nanoseconds, a likely mistake.
  EXPECT_THAT(base::ToString(ParseTime("1767322245678000000", kNow).status()),
              HasSubstr("milliseconds"));
}

TEST(ParseTimeRangeTest, DefaultsToTheLastFifteenMinutesWithNowInIt) {
  const auto range = ParseTimeRange(std::nullopt, std::nullopt, kNow);
  ASSERT_TRUE(range.ok());
  EXPECT_EQ(range->from_ms, kNow - 900'000);
  EXPECT_EQ(range->to_ms, kNow + 1);
}

TEST(ParseTimeRangeTest, AnEndAloneGetsFifteenMinutesBeforeIt) {
  const auto range = ParseTimeRange(std::nullopt, "now-1d", kNow);
  ASSERT_TRUE(range.ok());
  EXPECT_EQ(range->to_ms, kNow - 86'400'000);
  EXPECT_EQ(range->from_ms, kNow - 86'400'000 - 900'000);
}

TEST(ParseTimeRangeTest, MayEndInTheFutureButNotStartThere) {
  EXPECT_TRUE(ParseTimeRange("now-1h", "now+1h", kNow).ok());
  EXPECT_THAT(base::ToString(ParseTimeRange("now+1m", "now+1h", kNow).status()),
              HasSubstr("60000 ms in the future"));
}

TEST(ParseTimeRangeTest, RefusesEmptyAndBackwardRangesAndNamesTheBadEnd) {
  EXPECT_THAT(base::ToString(ParseTimeRange("now-1h", "now-2h", kNow).status()),
              HasSubstr("must be before"));
  EXPECT_THAT(base::ToString(ParseTimeRange("5", "5", kNow).status()), HasSubstr("must be before"));
  EXPECT_THAT(base::ToString(ParseTimeRange("x", "now", kNow).status()), HasSubstr("from: \"x\""));
  EXPECT_THAT(base::ToString(ParseTimeRange("now-1h", "y", kNow).status()), HasSubstr("to: \"y\""));
}

TEST(RequestQueryTest, AbsentParametersMeanEverythingOnCpu) {
  const auto query = ParseQuery(Request({}), kNow);
  ASSERT_TRUE(query.ok());
  EXPECT_THAT(query->selector.matchers(), IsEmpty());
  EXPECT_EQ(query->sample_type, "cpu");
  EXPECT_EQ(query->tenant.value, "default");
}

TEST(RequestQueryTest, ReadsSelectorRangeAndType) {
  const auto query = ParseQuery(
      Request({{"query", "{service=\"x\"}"}, {"from", "1"}, {"to", "2"}, {"type", "samples"}}),
      kNow);
  ASSERT_TRUE(query.ok());
  ASSERT_EQ(query->selector.matchers().size(), 1u);
  EXPECT_EQ(query->selector.matchers()[0].value(), "x");
  EXPECT_EQ(query->range.from_ms, 1);
  EXPECT_EQ(query->range.to_ms, 2);
  EXPECT_EQ(query->sample_type, "samples");
}

TEST(RequestQueryTest, NamesWhatItRefuses) {
  EXPECT_THAT(base::ToString(ParseQuery(Request({{"query", "{service="}}), kNow).status()),
              HasSubstr("query: "));
  EXPECT_THAT(base::ToString(ParseQuery(Request({{"type", "heap"}}), kNow).status()),
              HasSubstr("\"heap\" is not one of cpu, samples"));
  EXPECT_THAT(base::ToString(CheckParameters(Request({{"form", "now"}}), {"from", "to"})),
              HasSubstr("unknown parameter \"form\"; this path takes: from, to"));
  EXPECT_THAT(base::ToString(CheckParameters(Request({{"x", ""}}), {})), HasSubstr("takes: none"));
  EXPECT_THAT(base::ToString(CheckParameters(Request({{"to", "1"}, {"to", "1"}}), {"from", "to"})),
              HasSubstr("\"to\" comes twice"));
}

TEST(RequestQueryTest, NumbersHaveBounds) {
  EXPECT_EQ(*ParseNumber(Request({}), "limit", 7, 0, 10), 7);
  EXPECT_EQ(*ParseNumber(Request({{"limit", "10"}}), "limit", 7, 0, 10), 10);
  for (const char* text : {"", "11", "-1", "1.5", "1 ", "x", "99999999999999999999"}) {
    EXPECT_FALSE(ParseNumber(Request({{"limit", text}}), "limit", 7, 0, 10).ok()) << text;
  }
}

TEST(RequestQueryTest, GroupByIsAListOfLabelNames) {
  EXPECT_THAT(*ParseGroupBy(Request({})), IsEmpty());
  EXPECT_THAT(*ParseGroupBy(Request({{"group_by", "service,node"}})),
              ElementsAre("service", "node"));
  for (const char* text : {"a,,b", ",a", "1a", "a b", "a,a", "a,b,c,d,e,f,g,h,i"}) {
    EXPECT_FALSE(ParseGroupBy(Request({{"group_by", text}})).ok()) << text;
  }
}

SeriesPoints Points(std::vector<std::pair<std::string, std::string>> labels,
                    std::vector<std::pair<int64_t, int64_t>> points) {
  SeriesPoints series{.labels = profile::LabelSet(std::move(labels)), .points = std::move(points)};
  for (const auto& point : series.points) series.total += point.second;
  return series;
}

TEST(GroupSeriesTest, AddsUpByLabelAndSortsByTotal) {
  const std::vector<SeriesPoints> series = {
      Points({{"service", "small"}, {"comm", "a"}}, {{0, 1}, {10, 2}}),
      Points({{"service", "large"}, {"comm", "a"}}, {{0, 5}, {20, 5}}),
      Points({{"service", "large"}, {"comm", "b"}}, {{10, 3}, {20, 4}}),
      Points({{"comm", "c"}}, {{0, 4}})};
  const auto groups = GroupSeries(series, {"service"});
  ASSERT_EQ(groups.size(), 3u);
  EXPECT_THAT(groups[0].values, ElementsAre("large"));
  EXPECT_EQ(groups[0].total, 17);
  EXPECT_THAT(groups[0].points, ElementsAre(Pair(0, 5), Pair(10, 3), Pair(20, 9)));
  EXPECT_THAT(groups[1].values, ElementsAre(""));  // the label is absent
  EXPECT_THAT(groups[2].values, ElementsAre("small"));
}

TEST(GroupSeriesTest, WithoutLabelsThereIsOneGroup) {
  const auto groups =
      GroupSeries({Points({{"a", "1"}}, {{0, 1}}), Points({{"a", "2"}}, {{0, 2}})}, {});
  ASSERT_EQ(groups.size(), 1u);
  EXPECT_THAT(groups[0].values, IsEmpty());
  EXPECT_THAT(groups[0].points, ElementsAre(Pair(0, 3)));
  EXPECT_THAT(GroupSeries({}, {}), IsEmpty());
}

TEST(GroupSeriesTest, SumsOfForeignValuesDoNotWrap) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  const auto groups = GroupSeries({Points({}, {{0, kMax}}), Points({}, {{0, kMax}})}, {});
  EXPECT_EQ(groups[0].total, kMax);
}

TEST(DefaultStepTest, IsAMultipleOfTenSeconds) {
  EXPECT_EQ(DefaultStepMs({0, 1}), 10'000);
  EXPECT_EQ(DefaultStepMs({0, 900'000}), 10'000);         // 15 min: 90 points
  EXPECT_EQ(DefaultStepMs({0, 3'600'000}), 20'000);       // 1 h: 180 points
  EXPECT_EQ(DefaultStepMs({0, 86'400'000}), 480'000);     // 1 d: 180 points
  EXPECT_EQ(DefaultStepMs({0, 604'800'001}), 3'360'000);  // 1 w: 180 points
}

}  // namespace
}  // namespace firewatch::server
