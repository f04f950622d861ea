// SPDX-License-Identifier: Apache-2.0
#include "server/store/embedded/embedded_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <thread>

#include "base/status.h"
#include "server/store/embedded/test_directory.h"
#include "server/store/map_store.h"
#include "server/store/test_windows.h"

namespace firewatch::server {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr int64_t kHourMs = 3'600'000;

class EmbeddedStoreTest : public testing::Test {
 protected:
  EmbeddedStoreTest() { Reopen(); }

  void Reopen() {
    store_.reset();
    metrics_ = std::make_unique<base::MetricsRegistry>();
    auto store = OpenEmbeddedStore({.directory = directory_.path(),
                                    .retention_hours = 0,
                                    .retention_bytes = 0,
                                    .cache_bytes = uint64_t{8} << 20,
                                    .min_free_bytes = 0},
                                   clock_, *metrics_);
    ASSERT_TRUE(store.ok()) << base::ToString(store.status());
    store_ = *std::move(store);
  }

  void Append(const WindowBatch& batch, bool expect_duplicate = false) {
    bool duplicate = !expect_duplicate;
    const absl::Status status = store_->Append(batch, &duplicate);
    ASSERT_TRUE(status.ok()) << base::ToString(status);
    EXPECT_EQ(duplicate, expect_duplicate);
  }

  std::vector<std::string> Merged(const Query& query) {
    const auto profile = store_->Merge(query);
    EXPECT_TRUE(profile.ok()) << base::ToString(profile.status());
    return profile.ok() ? DescribeSamples(*profile) : std::vector<std::string>{"error"};
  }

  TestDirectory directory_;
  base::FakeClock clock_{{kTestEpochMs * 1'000'000}, 1};
  std::unique_ptr<base::MetricsRegistry> metrics_;
  std::unique_ptr<ProfileStore> store_;
};

Query Everything() {
  Query query;
  query.range = {.from_ms = 0, .to_ms = INT64_MAX};
  return query;
}

Query Selecting(std::string_view selector) {
  Query query = Everything();
  query.selector = profile::ParseSelector(selector).value();
  return query;
}

void ExpectSameAnswers(ProfileStore& store, const MapStore& twin, const Query& query) {
  const auto merged = store.Merge(query);
  ASSERT_TRUE(merged.ok()) << base::ToString(merged.status());
  EXPECT_EQ(DescribeSamples(*merged), twin.MergedSamples(query));
  EXPECT_EQ(store.LabelNames(query).value(), twin.LabelNames(query));
  EXPECT_EQ(store.LabelValues(query, "service").value(), twin.LabelValues(query, "service"));
  EXPECT_EQ(store.LabelValues(query, "zone").value(), twin.LabelValues(query, "zone"));
  const auto connections = store.Connections(query);
  ASSERT_TRUE(connections.ok()) << base::ToString(connections.status());
  const ConnectionReport expected_connections = twin.Connections(query);
  EXPECT_EQ(connections->windows, expected_connections.windows);
  EXPECT_EQ(connections->rows, expected_connections.rows);
  const auto series = store.Series(query, 60'000).value();
  const auto expected = twin.Series(query, 60'000);
  ASSERT_EQ(series.size(), expected.size());
  for (size_t i = 0; i < series.size(); ++i) {
    EXPECT_EQ(series[i].labels, expected[i].labels);
    EXPECT_EQ(series[i].points, expected[i].points);
    EXPECT_EQ(series[i].total, expected[i].total);
  }
}

TEST_F(EmbeddedStoreTest, AnswersAsTheMapOfEverythingDoes) {
  MapStore twin;
  RandomWindows windows(20'231'114);
  for (int i = 0; i < 300; ++i) {
    const WindowBatch window = windows.Next(5 * kHourMs);
    Append(window);
    twin.Append(window);
    if (i == 150) Reopen();
  }
  for (const char* selector :
       {"", "{service=\"service-1\"}", "{service!=\"service-1\"}", "{service=~\"service-[23]\"}",
        "{service=\"service-7\"}", "{node!~\"node-0\", zone=\"west\"}", "{zone=\"\"}",
        "{service=\"nobody\"}"}) {
    SCOPED_TRACE(selector);
    ExpectSameAnswers(*store_, twin, Selecting(selector));
    Query narrow = Selecting(selector);
    narrow.range = {.from_ms = kTestEpochMs + 20 * 60'000, .to_ms = kTestEpochMs + 100 * 60'000};
    ExpectSameAnswers(*store_, twin, narrow);
    narrow.sample_type = "samples";
    narrow.range = {.from_ms = kTestEpochMs, .to_ms = kTestEpochMs + 60'000};
    ExpectSameAnswers(*store_, twin, narrow);
  }
}

TEST_F(EmbeddedStoreTest, EmptyStoreAnswersWithNothing) {
  EXPECT_THAT(Merged(Everything()), IsEmpty());
  EXPECT_THAT(store_->LabelNames(Everything()).value(), IsEmpty());
  EXPECT_THAT(store_->LabelValues(Everything(), "service").value(), IsEmpty());
  EXPECT_THAT(store_->Series(Everything(), 1000).value(), IsEmpty());
  const StoreStats stats = store_->Stats().value();
  EXPECT_EQ(stats.windows, 0U);
  EXPECT_EQ(stats.oldest_ms, 0);
}

TEST_F(EmbeddedStoreTest, SecondUploadOfTheSameIdChangesNothing) {
  Append(MakeTestWindow(1, kTestEpochMs, "a", 5));
  const auto before = Merged(Everything());
  Append(MakeTestWindow(1, kTestEpochMs, "a", 5), /*expect_duplicate=*/true);
  Append(MakeTestWindow(1, kTestEpochMs + kHourMs, "b", 7), /*expect_duplicate=*/true);
  EXPECT_EQ(Merged(Everything()), before);
  Reopen();
  Append(MakeTestWindow(1, kTestEpochMs, "a", 5), /*expect_duplicate=*/true);
  EXPECT_EQ(Merged(Everything()), before);
  EXPECT_EQ(store_->Stats().value().windows, 1U);
  EXPECT_EQ(store_->Stats().value().duplicates, 1U);
}

TEST_F(EmbeddedStoreTest, ConnectionsAreAddedUpOverTimeAndLivingIsOfTheNewestWindow) {
  Append(MakeTestConnections(2, kTestEpochMs + kHourMs, "a", {MakeTestEdge(1, 80, 2)}));
  Append(
      MakeTestConnections(1, kTestEpochMs, "a", {MakeTestEdge(1, 80, 5), MakeTestEdge(2, 80, 1)}));
  Append(MakeTestConnections(3, kTestEpochMs, "b", {MakeTestEdge(1, 80, 7)}));
  for (int pass = 0; pass < 2; ++pass) {
    const ConnectionReport report = store_->Connections(Selecting("{service=\"a\"}")).value();
    EXPECT_EQ(report.windows, 2U);
    ASSERT_THAT(report.rows, SizeIs(2));
    EXPECT_EQ(report.rows[0].labels.Get("service"), "a");
    EXPECT_EQ(report.rows[0].edge.remote, std::string("\x0a\0\0\1", 4));
    EXPECT_EQ(report.rows[0].edge.counts.opened, 7U);
    EXPECT_EQ(report.rows[0].edge.counts.bytes_sent, 7'000'000U);
    EXPECT_EQ(report.rows[0].edge.counts.rtt_count, 7U);
    EXPECT_EQ(report.rows[0].edge.living, 2U);
    EXPECT_EQ(report.rows[1].edge.living, 1U);
    Reopen();
  }
  EXPECT_THAT(Merged(Everything()), IsEmpty());
  EXPECT_THAT(store_->Series(Everything(), 1000).value(), IsEmpty());
  EXPECT_THAT(store_->LabelValues(Everything(), "service").value(), ElementsAre("a", "b"));
  Query narrow = Everything();
  narrow.range = {.from_ms = kTestEpochMs + 1, .to_ms = kTestEpochMs + 2 * kHourMs};
  EXPECT_THAT(store_->LabelValues(narrow, "service").value(), ElementsAre("a"));
  EXPECT_EQ(store_->Connections(narrow).value().windows, 1U);
}

TEST_F(EmbeddedStoreTest, ConnectionsOfARetryCountOnce) {
  const WindowBatch window = MakeTestConnections(1, kTestEpochMs, "a", {MakeTestEdge(1, 80, 5)});
  Append(window);
  Append(window, /*expect_duplicate=*/true);
  Reopen();
  Append(window, /*expect_duplicate=*/true);
  const ConnectionReport report = store_->Connections(Everything()).value();
  EXPECT_EQ(report.windows, 1U);
  ASSERT_THAT(report.rows, SizeIs(1));
  EXPECT_EQ(report.rows[0].edge, MakeTestEdge(1, 80, 5));
}

TEST_F(EmbeddedStoreTest, RefusesConnectionsThatMakeNoSense) {
  ConnectionEdge edge = MakeTestEdge(1, 80, 5);
  const auto refused = [&] {
    bool duplicate = false;
    const absl::Status status =
        store_->Append(MakeTestConnections(1, kTestEpochMs, "a", {edge}), &duplicate);
    return status.code() == absl::StatusCode::kInvalidArgument;
  };
  edge.remote = "abc";
  EXPECT_TRUE(refused());
  edge.remote = "";  // with a port
  EXPECT_TRUE(refused());
  edge = MakeTestEdge(1, 80, 5);
  edge.role = static_cast<ConnectionRole>(3);
  EXPECT_TRUE(refused());
  edge = MakeTestEdge(1, 80, 5);
  edge.counts.duration_us = uint64_t{1} << 63;
  EXPECT_TRUE(refused());
  EXPECT_EQ(store_->Stats().value().windows, 0U);
}

TEST(ConnectionMergerTest, WhatDoesNotFitIsOtherOfItsLabels) {
  ConnectionMerger merger(2);
  const size_t a = merger.AddLabels(profile::LabelSet({{"service", "a"}}));
  const size_t b = merger.AddLabels(profile::LabelSet({{"service", "b"}}));
  EXPECT_EQ(merger.AddLabels(profile::LabelSet({{"service", "a"}})), a);
  for (uint8_t peer = 1; peer <= 4; ++peer) {
    merger.Add(a, 1, MakeTestEdge(peer, 80, peer));
    merger.Add(b, 1, MakeTestEdge(peer, 80, peer));
  }
  const std::vector<ConnectionRow> rows = std::move(merger).Finish();
  ASSERT_THAT(rows, SizeIs(4));
  EXPECT_EQ(rows[0].edge.remote, "");  // of a
  EXPECT_EQ(rows[0].edge.port, 0);
  EXPECT_EQ(rows[0].edge.counts.opened, 9U);
  EXPECT_EQ(rows[0].edge.living, 9U);
  EXPECT_EQ(rows[1].edge.counts.opened, 1U);
  EXPECT_EQ(rows[2].edge.counts.opened, 9U);
  EXPECT_EQ(rows[3].edge.counts.opened, 1U);
}

TEST(ConnectionMergerTest, SumsStopBelowTwoToTheSixtyThree) {
  ConnectionMerger merger(2);
  ConnectionEdge edge = MakeTestEdge(1, 80, 1);
  edge.counts.bytes_sent = INT64_MAX;
  edge.living = INT64_MAX;
  const size_t a = merger.AddLabels({});
  merger.Add(a, 1, edge);
  merger.Add(a, 1, edge);
  const std::vector<ConnectionRow> rows = std::move(merger).Finish();
  EXPECT_EQ(rows[0].edge.counts.bytes_sent, uint64_t{INT64_MAX});
  EXPECT_EQ(rows[0].edge.living, uint64_t{INT64_MAX});
  EXPECT_TRUE(IsValidEdge(rows[0].edge));
}

TEST_F(EmbeddedStoreTest, SameSequenceOfAnotherAgentOrTenantIsAnotherUpload) {
  WindowBatch window = MakeTestWindow(1, kTestEpochMs, "a", 5);
  Append(window);
  window.upload.agent_id = std::string(16, 'b');
  Append(window);
  window.tenant.value = "other";
  Append(window);
  EXPECT_EQ(store_->Series(Everything(), 1000).value().at(0).total, 2 * 5 * 10'000'000);
  Query other = Everything();
  other.tenant.value = "other";
  EXPECT_EQ(store_->Series(other, 1000).value().at(0).total, 5 * 10'000'000);
}

TEST_F(EmbeddedStoreTest, OneSeriesTwiceInAWindowIsAddedUp) {
  WindowBatch window = MakeTestWindow(1, kTestEpochMs, "a", 5);
  window.series.push_back(window.series.front());
  Append(window);
  EXPECT_THAT(Merged(Everything()),
              ElementsAre("main|_Zmain|world.cc:42;work|_Zwork|world.cc:42 {} 10 100000000"));
}

TEST_F(EmbeddedStoreTest, BetterNamesImproveWhatIsStored) {
  WindowBatch bare = MakeTestWindow(1, kTestEpochMs, "a", 1);
  bare.series[0].profile = MakeTestProfile({{.root_first = {"main"}, .samples = 1, .detail = 0}});
  Append(bare);
  EXPECT_THAT(Merged(Everything()), ElementsAre(HasSubstr("/usr/bin/world+0x")));
  WindowBatch named = MakeTestWindow(2, kTestEpochMs, "a", 1);
  named.series[0].profile = MakeTestProfile({{.root_first = {"main"}, .samples = 1, .detail = 1}});
  Append(named);
  EXPECT_THAT(Merged(Everything()), ElementsAre("main|_Zmain|:0 {} 2 20000000"));
  Reopen();
  WindowBatch lines = MakeTestWindow(3, kTestEpochMs, "a", 1);
  lines.series[0].profile = MakeTestProfile({{.root_first = {"main"}, .samples = 1, .detail = 3}});
  Append(lines);
  bare.upload.sequence = 4;  // a worse name that comes later takes nothing away
  Append(bare);
  EXPECT_THAT(Merged(Everything()),
              ElementsAre("inlined_main||inline.h:7<main|_Zmain|world.cc:42 {} 4 40000000"));
}

TEST_F(EmbeddedStoreTest, BestNameOfAllPartitionsWins) {
  WindowBatch named = MakeTestWindow(1, kTestEpochMs, "a", 1);
  Append(named);
  WindowBatch bare = MakeTestWindow(2, kTestEpochMs + 2 * kHourMs, "a", 1);
  bare.series[0].profile =
      MakeTestProfile({{.root_first = {"main", "work"}, .samples = 1, .detail = 0}});
  Append(bare);
  EXPECT_THAT(Merged(Everything()),
              ElementsAre("main|_Zmain|world.cc:42;work|_Zwork|world.cc:42 {} 2 20000000"));
}

TEST_F(EmbeddedStoreTest, MergeTellsTimesPeriodAndMappingFlags) {
  Append(MakeTestWindow(1, kTestEpochMs, "a", 1));
  Append(MakeTestWindow(2, kTestEpochMs + 20'000, "a", 1));
  Append(MakeTestWindow(3, kTestEpochMs + 90'000, "b", 1));
  const profile::Profile profile = store_->Merge(Selecting("{service=\"a\"}")).value();
  EXPECT_EQ(profile.start_unix_ns, kTestEpochMs * 1'000'000);
  EXPECT_EQ(profile.duration_ns, 30'000'000'000);
  EXPECT_EQ(profile.period, 10'000'000);
  EXPECT_EQ(profile.period_type, (profile::ValueType{"cpu", "nanoseconds"}));
  ASSERT_THAT(profile.mappings, SizeIs(2));
  EXPECT_TRUE(profile.mappings[1].has_functions);
  EXPECT_TRUE(profile.mappings[1].has_line_numbers);
  EXPECT_FALSE(profile.mappings[1].has_inline_frames);
}

TEST_F(EmbeddedStoreTest, WindowBelongsToTheRangeOfItsStart) {
  Append(MakeTestWindow(1, kTestEpochMs, "a", 1));
  Query query = Everything();
  query.range = {.from_ms = kTestEpochMs, .to_ms = kTestEpochMs + 1};
  EXPECT_THAT(Merged(query), SizeIs(1));
  query.range = {.from_ms = kTestEpochMs - 1000, .to_ms = kTestEpochMs};
  EXPECT_THAT(Merged(query), IsEmpty());
  EXPECT_THAT(store_->LabelNames(query).value(), IsEmpty());
  query.range = {.from_ms = kTestEpochMs + 1, .to_ms = kTestEpochMs + 20'000};
  EXPECT_THAT(store_->Series(query, 1000).value(), IsEmpty());
  query.range = {.from_ms = INT64_MIN, .to_ms = INT64_MAX};
  EXPECT_THAT(Merged(query), SizeIs(1));
}

TEST_F(EmbeddedStoreTest, RefusesQueriesThatMakeNoSense) {
  Query backwards = Everything();
  backwards.range = {.from_ms = 10, .to_ms = 5};
  EXPECT_EQ(store_->Merge(backwards).status().code(), absl::StatusCode::kInvalidArgument);
  Query type = Everything();
  type.sample_type = "heap";
  EXPECT_EQ(store_->Series(type, 1000).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(store_->Series(Everything(), 0).status().code(), absl::StatusCode::kInvalidArgument);
  Query tenant = Everything();
  tenant.tenant.value = std::string("a\0b", 3);
  EXPECT_EQ(store_->LabelNames(tenant).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(EmbeddedStoreTest, RefusesWindowsThatMakeNoSenseAndStoresNothingOfThem) {
  bool duplicate = false;
  WindowBatch window = MakeTestWindow(1, kTestEpochMs, "a", 1);
  window.upload.agent_id = "short";
  EXPECT_EQ(store_->Append(window, &duplicate).code(), absl::StatusCode::kInvalidArgument);
  window = MakeTestWindow(1, kTestEpochMs, "a", 1);
  window.series.push_back(window.series.front());
  window.series[1].profile.samples[0].values[0] = -1;
  EXPECT_EQ(store_->Append(window, &duplicate).code(), absl::StatusCode::kInvalidArgument);
  window.series[1].profile.samples[0].values[0] = INT64_MAX;
  EXPECT_EQ(store_->Append(window, &duplicate).code(), absl::StatusCode::kInvalidArgument);
  window.series[1].profile.samples[0].stack = profile::StackId(99);
  EXPECT_EQ(store_->Append(window, &duplicate).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(store_->Stats().value().windows, 0U);
  EXPECT_THAT(Merged(Everything()), IsEmpty());
  Append(MakeTestWindow(1, kTestEpochMs, "a", 1));  // the id was not taken
}

TEST_F(EmbeddedStoreTest, StatsAddUpLossesAndStackEndsAlsoAfterAReopen) {
  WindowBatch window = MakeTestWindow(1, kTestEpochMs, "a", 1);
  window.losses = {{"ring_full", 3}};
  window.stack_ends = {{"root", 90}, {"truncated", 1}};
  Append(window);
  window.upload.sequence = 2;
  window.window = {.from_ms = kTestEpochMs + kHourMs, .to_ms = kTestEpochMs + kHourMs + 10'000};
  Append(window);
  for (int i = 0; i < 2; ++i) {
    const StoreStats stats = store_->Stats().value();
    EXPECT_EQ(stats.windows, 2U);
    EXPECT_EQ(stats.oldest_ms, kTestEpochMs);
    EXPECT_EQ(stats.newest_ms, kTestEpochMs + kHourMs + 10'000);
    EXPECT_THAT(stats.losses, ElementsAre(testing::Pair("ring_full", 6)));
    EXPECT_THAT(stats.stack_ends,
                ElementsAre(testing::Pair("root", 180), testing::Pair("truncated", 2)));
    EXPECT_GT(stats.disk_bytes, 0U);
    Reopen();
  }
}

TEST_F(EmbeddedStoreTest, HealthCheckWritesAndReads) {
  EXPECT_TRUE(store_->CheckHealth().ok());
  EXPECT_TRUE(store_->CheckHealth().ok());
}

TEST_F(EmbeddedStoreTest, SecondProcessIsToldThatTheStoreIsOpen) {
  base::MetricsRegistry metrics;
  const auto second = OpenEmbeddedStore({.directory = directory_.path()}, clock_, metrics);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(base::Message(second.status())), HasSubstr("another process"));
}

TEST_F(EmbeddedStoreTest, ConcurrentAppendsAndQueriesLoseNothing) {
  constexpr int kThreads = 4;
  constexpr int kWindowsEach = 40;
  std::vector<std::thread> writers;
  for (int thread = 0; thread < kThreads; ++thread) {
    writers.emplace_back([this, thread] {
      for (int i = 0; i < kWindowsEach; ++i) {
        WindowBatch window =
            MakeTestWindow(static_cast<uint64_t>(i), kTestEpochMs + i * 1000, "a", 1);
        window.upload.agent_id[0] = static_cast<char>('0' + thread);
        // New stacks all the time, the same ones in every thread.
        window.series[0].profile =
            MakeTestProfile({{.root_first = {"main", "f" + std::to_string(i)}, .samples = 1}});
        bool duplicate = false;
        EXPECT_TRUE(store_->Append(window, &duplicate).ok());
      }
    });
  }
  int64_t last = 0;
  for (int i = 0; i < 20; ++i) {
    const auto series = store_->Series(Everything(), kHourMs).value();
    const int64_t total = series.empty() ? 0 : series[0].total;
    EXPECT_GE(total, last);
    last = total;
    EXPECT_TRUE(store_->Merge(Everything()).ok());
  }
  for (auto& writer : writers) writer.join();
  Reopen();
  const auto merged = Merged(Everything());
  EXPECT_THAT(merged, SizeIs(kWindowsEach));
  for (const auto& line : merged) EXPECT_THAT(line, HasSubstr(" {} 4 40000000"));
}

TEST_F(EmbeddedStoreTest, RacingRetriesOfOneUploadCountOnce) {
  std::vector<std::thread> threads;
  std::atomic<int> stored{0};
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([this, &stored] {
      bool duplicate = false;
      EXPECT_TRUE(store_->Append(MakeTestWindow(1, kTestEpochMs, "a", 1), &duplicate).ok());
      if (!duplicate) stored.fetch_add(1);
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(stored.load(), 1);
  EXPECT_THAT(Merged(Everything()), ElementsAre(HasSubstr(" {} 1 10000000")));
}

}  // namespace
}  // namespace firewatch::server
