// SPDX-License-Identifier: Apache-2.0
// Retention by age and by bytes, a full disk, and damaged rows.
#include "server/store/embedded/retention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "base/status.h"
#include "server/store/embedded/embedded_store.h"
#include "server/store/embedded/keys.h"
#include "server/store/embedded/test_directory.h"
#include "server/store/test_windows.h"

namespace firewatch::server {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr int64_t kHourMs = 3'600'000;
// The start of an hour.
constexpr int64_t kHour0Ms = kTestEpochMs - kTestEpochMs % kHourMs;

Query Everything() {
  Query query;
  query.range = {.from_ms = 0, .to_ms = INT64_MAX};
  return query;
}

struct OpenStore {
  std::unique_ptr<base::FakeClock> clock;
  std::unique_ptr<base::MetricsRegistry> metrics = std::make_unique<base::MetricsRegistry>();
  std::unique_ptr<ProfileStore> store;
  ProfileStore* operator->() const { return store.get(); }
};

OpenStore Open(EmbeddedStoreOptions options) {
  OpenStore open;
  open.clock = std::make_unique<base::FakeClock>(base::WallTime{kHour0Ms * 1'000'000}, 1);
  auto store = OpenEmbeddedStore(std::move(options), *open.clock, *open.metrics);
  EXPECT_TRUE(store.ok()) << base::ToString(store.status());
  open.store = *std::move(store);
  return open;
}

absl::Status Append(ProfileStore& store, const WindowBatch& window) {
  bool duplicate = false;
  return store.Append(window, &duplicate);
}

// A window that no compression makes small.
WindowBatch LargeWindow(uint64_t sequence, int64_t start_ms) {
  std::mt19937_64 random(sequence);
  std::vector<TestStack> stacks;
  for (int i = 0; i < 300; ++i) {
    std::string name;
    for (int c = 0; c < 60; ++c) name.push_back(static_cast<char>('a' + random() % 26));
    stacks.push_back({.root_first = {"main", name}, .samples = 1});
  }
  WindowBatch window = MakeTestWindow(sequence, start_ms, "large", 1);
  window.series[0].profile = MakeTestProfile(stacks);
  return window;
}

TEST(RetentionTest, HoursPastTheAgeAreDropped) {
  const TestDirectory directory;
  OpenStore store =
      Open({.directory = directory.path(), .retention_hours = 2, .min_free_bytes = 0});
  for (uint64_t hour = 0; hour < 5; ++hour) {
    const int64_t start_ms = kHour0Ms + static_cast<int64_t>(hour) * kHourMs;
    ASSERT_TRUE(Append(*store.store, MakeTestWindow(hour, start_ms, "a", 1)).ok());
  }
  for (uint64_t hour = 0; hour < 5; ++hour) {
    const int64_t start_ms = kHour0Ms + static_cast<int64_t>(hour) * kHourMs;
    ASSERT_TRUE(Append(*store.store,
                       MakeTestConnections(100 + hour, start_ms, "net", {MakeTestEdge(1, 80, 1)}))
                    .ok());
  }
  EXPECT_EQ(store->Connections(Everything()).value().windows, 5U);
  // At 4:30, what ended before 2:30 goes: the hours 0 and 1.
  ASSERT_TRUE(store->ApplyRetention(kHour0Ms + 4 * kHourMs + kHourMs / 2).ok());
  EXPECT_EQ(store->Connections(Everything()).value().windows, 3U);
  EXPECT_THAT(store->Series(Everything(), kHourMs).value().at(0).points, SizeIs(3));
  StoreStats stats = store->Stats().value();
  EXPECT_EQ(stats.oldest_ms, kHour0Ms + 2 * kHourMs);
  EXPECT_EQ(stats.windows, 10U);  // since the store was made
  // A retry of a window that retention dropped is still known.
  bool duplicate = false;
  ASSERT_TRUE(store->Append(MakeTestWindow(0, kHour0Ms, "a", 1), &duplicate).ok());
  EXPECT_TRUE(duplicate);
  store.store.reset();
  store = Open({.directory = directory.path(), .retention_hours = 2, .min_free_bytes = 0});
  EXPECT_EQ(store->Stats().value().windows, 10U);
}

TEST(RetentionTest, DroppedHourCanBeWrittenAgain) {
  const TestDirectory directory;
  const OpenStore store =
      Open({.directory = directory.path(), .retention_hours = 1, .min_free_bytes = 0});
  ASSERT_TRUE(Append(*store.store, MakeTestWindow(1, kHour0Ms, "a", 1)).ok());
  ASSERT_TRUE(store->ApplyRetention(kHour0Ms + 10 * kHourMs).ok());
  EXPECT_THAT(store->Merge(Everything()).value().samples, IsEmpty());
  EXPECT_EQ(store->Stats().value().oldest_ms, 0);
  // Its tables are gone too: stacks that were known before must be stored again.
  ASSERT_TRUE(Append(*store.store, MakeTestWindow(2, kHour0Ms, "a", 3)).ok());
  EXPECT_EQ(DescribeSamples(store->Merge(Everything()).value()).size(), 1U);
}

TEST(RetentionTest, RetentionOfZeroKeepsEverything) {
  const TestDirectory directory;
  const OpenStore store = Open({.directory = directory.path(),
                                .retention_hours = 0,
                                .retention_bytes = 0,
                                .min_free_bytes = 0});
  ASSERT_TRUE(Append(*store.store, MakeTestWindow(1, kHour0Ms, "a", 1)).ok());
  ASSERT_TRUE(store->ApplyRetention(INT64_MAX / 1'000'000).ok());
  EXPECT_THAT(store->Series(Everything(), kHourMs).value(), SizeIs(1));
}

TEST(RetentionTest, OldestHoursGoWhenTheStoreTakesTooManyBytes) {
  const TestDirectory directory;
  constexpr uint64_t kBound = uint64_t{1} << 20;
  const OpenStore store = Open({.directory = directory.path(),
                                .retention_hours = 0,
                                .retention_bytes = kBound,
                                .min_free_bytes = 0});
  uint64_t sequence = 0;
  for (int hour = 0; hour < 10; ++hour) {
    for (int i = 0; i < 10; ++i) {
      ASSERT_TRUE(
          Append(*store.store, LargeWindow(++sequence, kHour0Ms + hour * kHourMs + i * 10'000))
              .ok());
    }
  }
  ASSERT_GT(store->Stats().value().disk_bytes, kBound);
  ASSERT_TRUE(store->ApplyRetention(kHour0Ms).ok());
  const StoreStats stats = store->Stats().value();
  EXPECT_LE(stats.disk_bytes, kBound);
  EXPECT_EQ(stats.windows, 100U);
  // The newest hour is whole, the oldest is gone.
  const auto points = store->Series(Everything(), kHourMs).value().at(0).points;
  EXPECT_GT(points.front().first, kHour0Ms);
  EXPECT_EQ(points.back().first, kHour0Ms + 9 * kHourMs);
  EXPECT_EQ(points.back().second, 10 * 300 * int64_t{10'000'000});
}

TEST(RetentionTest, LateWindowsOfADroppedHourStay) {
  const TestDirectory directory;
  const OpenStore store =
      Open({.directory = directory.path(), .retention_hours = 1, .min_free_bytes = 0});
  std::atomic<uint64_t> sequence{0};
  for (int round = 0; round < 10; ++round) {
    // Appends race with the drop of their hour: what is acknowledged after it, must be there.
    std::atomic<bool> dropped{false};
    uint64_t stored_after = 0;
    std::thread writer([&] {
      while (stored_after < 5) {
        const bool after = dropped.load();
        EXPECT_TRUE(Append(*store.store, MakeTestWindow(++sequence, kHour0Ms, "a", 1)).ok());
        if (after) ++stored_after;
      }
    });
    EXPECT_TRUE(store->ApplyRetention(kHour0Ms + 10 * kHourMs).ok());
    dropped.store(true);
    writer.join();
    const auto series = store->Series(Everything(), kHourMs).value();
    ASSERT_THAT(series, SizeIs(1));
    EXPECT_GE(series[0].total, 5 * int64_t{10'000'000});
    EXPECT_THAT(store->Merge(Everything()).value().samples, SizeIs(1));
  }
}

TEST(RetentionTest, RunsWhileOthersAppendAndAsk) {
  const TestDirectory directory;
  const OpenStore store =
      Open({.directory = directory.path(), .retention_hours = 1, .min_free_bytes = 0});
  std::thread writer([&store] {
    for (uint64_t i = 0; i < 150; ++i) {
      const int64_t start_ms = kHour0Ms + static_cast<int64_t>(i % 6) * kHourMs;
      EXPECT_TRUE(Append(*store.store, MakeTestWindow(i, start_ms, "a", 1)).ok());
    }
  });
  for (int i = 0; i < 20; ++i) {
    const absl::Status status = store->ApplyRetention(kHour0Ms + (i % 6) * kHourMs);
    EXPECT_TRUE(status.ok()) << base::ToString(status);
    const auto merged = store->Merge(Everything());
    EXPECT_TRUE(merged.ok()) << base::ToString(merged.status());
  }
  writer.join();
}

TEST(FullDiskTest, ReserveRefusesAppendsAndQueriesGoOn) {
  const TestDirectory directory;
  {
    const OpenStore store = Open({.directory = directory.path(), .min_free_bytes = 0});
    ASSERT_TRUE(Append(*store.store, MakeTestWindow(1, kHour0Ms, "a", 1)).ok());
  }
  const OpenStore store = Open({.directory = directory.path(), .min_free_bytes = UINT64_MAX});
  EXPECT_EQ(Append(*store.store, MakeTestWindow(2, kHour0Ms, "a", 1)).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(store->CheckHealth().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(store->Merge(Everything()).value().samples, SizeIs(1));
  EXPECT_THAT(store.metrics->Expose(),
              HasSubstr("firewatch_store_refused_total{reason=\"disk_full\"} 1"));
}

// Fills the mounted disk by appends until one is refused. Returns an exit code: 0 when all is well.
int FillDiskAndRecover(const std::string& mounted) {
  const OpenStore store = Open({.directory = mounted + "/store",
                                .retention_hours = 0,
                                .retention_bytes = 0,
                                .min_free_bytes = 0});
  // Several at once: RocksDB must not go on with a log that one of them has seen fail.
  constexpr uint64_t kWriters = 3;
  std::atomic<uint64_t> stored{0};
  std::atomic<bool> wrong{false};
  std::vector<std::thread> writers;
  for (uint64_t writer = 0; writer < kWriters; ++writer) {
    writers.emplace_back([&, writer] {
      absl::Status status;
      for (uint64_t i = writer; i < 3000 && status.ok(); i += kWriters) {
        status = Append(*store.store, LargeWindow(i, kHour0Ms + static_cast<int64_t>(i) * 1000));
        if (status.ok()) stored.fetch_add(1);
      }
      if (status.code() == absl::StatusCode::kResourceExhausted) return;
      fmt::print(stderr, "not refused: {}\n", base::ToString(status));
      wrong.store(true);
    });
  }
  for (auto& writer : writers) writer.join();
  if (wrong.load()) return 11;
  if (store->CheckHealth().ok()) return 12;
  const auto series = store->Series(Everything(), kHourMs);
  if (!series.ok()) return 13;
  int64_t total = 0;
  for (const auto& one : *series) total += one.total;
  if (total != static_cast<int64_t>(stored.load()) * 300 * 10'000'000) return 14;
  // More room: the store gets going again by itself.
  if (mount("tmpfs", mounted.c_str(), "tmpfs", MS_REMOUNT, "size=128m") != 0) return 15;
  // RocksDB looks every few seconds.
  absl::Status status;
  for (int attempt = 0; attempt < 200; ++attempt) {
    status = Append(*store.store, LargeWindow(9'999, kHour0Ms));
    if (status.ok()) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  if (!status.ok()) {
    fmt::print(stderr, "not recovered: {}\n", base::ToString(status));
    return 16;
  }
  if (!store->CheckHealth().ok()) return 17;
  // Refused windows left nothing behind, and their ids are free.
  const StoreStats stats = store->Stats().value();
  if (stats.windows != stored.load() + 1) return 18;
  total = 0;
  const auto after = store->Series(Everything(), kHourMs);
  if (!after.ok()) return 19;
  for (const auto& one : *after) total += one.total;
  return total == static_cast<int64_t>(stored.load() + 1) * 300 * 10'000'000 ? 0 : 20;
}

TEST(FullDiskTest, RealEndOfTheDiskIsSurvived) {
  const TestDirectory directory;
  const pid_t child = fork();
  if (child == 0) {
    // A mount namespace of the child's own: the mount goes away with it.
    if (unshare(CLONE_NEWNS) != 0 ||
        mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("tmpfs", directory.path().c_str(), "tmpfs", 0, "size=12m") != 0) {
      _exit(77);
    }
    execl("/proc/self/exe", "store_retention_test", "--fill-disk", directory.path().c_str(),
          nullptr);
    _exit(78);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) {
    GTEST_SKIP() << "needs a mount namespace of its own (root) to make a small disk";
  }
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

// Opens the store's rows behind its back.
void Overwrite(const std::string& directory, const std::function<void(Database&)>& change) {
  auto database = Database::Open({.directory = directory}).value();
  change(*database);
}

TEST(DamageTest, DamagedAndMissingRowsAreNamed) {
  const TestDirectory directory;
  {
    const OpenStore store = Open({.directory = directory.path(), .min_free_bytes = 0});
    ASSERT_TRUE(Append(*store.store, MakeTestWindow(1, kHour0Ms, "a", 1)).ok());
  }
  const PartitionKey partition{.hour = HourOf(kHour0Ms), .tenant = "default"};
  for (const RowKind kind :
       {RowKind::kSeries, RowKind::kMapping, RowKind::kFunction, RowKind::kLocation,
        RowKind::kStack, RowKind::kNames, RowKind::kBlock}) {
    SCOPED_TRACE(static_cast<int>(kind));
    std::string key;
    std::string value;
    Overwrite(directory.path(), [&](Database& database) {
      Cursor cursor = database.NewCursor(Table::kPartitions);
      cursor.Seek(KindPrefix(partition, kind));
      key = cursor.key();
      value = cursor.value();
      WriteSet rows;
      rows.Put(Table::kPartitions, key, std::string(17, '\xff'));
      ASSERT_TRUE(database.Write(rows).ok());
    });
    {
      const OpenStore store = Open({.directory = directory.path(), .min_free_bytes = 0});
      const auto merged = store->Merge(Everything());
      EXPECT_EQ(merged.status().code(), absl::StatusCode::kDataLoss);
      EXPECT_THAT(std::string(base::Message(merged.status())), HasSubstr(HexKey(key)));
    }
    Overwrite(directory.path(), [&](Database& database) {
      WriteSet rows;
      rows.Put(Table::kPartitions, key, value);
      ASSERT_TRUE(database.Write(rows).ok());
    });
  }
  const OpenStore store = Open({.directory = directory.path(), .min_free_bytes = 0});
  EXPECT_TRUE(store->Merge(Everything()).ok());
}

TEST(DamageTest, DamagedConnectionsAreNamedAndProfilesAreRead) {
  const TestDirectory directory;
  {
    const OpenStore store = Open({.directory = directory.path(), .min_free_bytes = 0});
    WindowBatch window = MakeTestConnections(1, kHour0Ms, "a", {MakeTestEdge(1, 80, 1)});
    window.series = MakeTestWindow(1, kHour0Ms, "a", 1).series;
    ASSERT_TRUE(Append(*store.store, window).ok());
    EXPECT_EQ(store->Connections(Everything()).value().rows.size(), 1U);
  }
  std::string key;
  Overwrite(directory.path(), [&](Database& database) {
    Cursor cursor = database.NewCursor(Table::kPartitions);
    cursor.Seek(KindPrefix({.hour = HourOf(kHour0Ms), .tenant = "default"}, RowKind::kConnections));
    ASSERT_TRUE(cursor.Valid());
    key = cursor.key();
    WriteSet rows;
    rows.Put(Table::kPartitions, key, std::string(17, '\xff'));
    ASSERT_TRUE(database.Write(rows).ok());
  });
  const OpenStore store = Open({.directory = directory.path(), .min_free_bytes = 0});
  const auto connections = store->Connections(Everything());
  EXPECT_EQ(connections.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(base::Message(connections.status())), HasSubstr(HexKey(key)));
  EXPECT_TRUE(store->Merge(Everything()).ok());
}

TEST(DamageTest, StoreOfANewerServerIsNotOpened) {
  const TestDirectory directory;
  {
    const OpenStore store = Open({.directory = directory.path(), .min_free_bytes = 0});
  }
  Overwrite(directory.path(), [](Database& database) {
    WriteSet rows;
    rows.Put(Table::kMeta, "format", "2");
    ASSERT_TRUE(database.Write(rows).ok());
  });
  const base::FakeClock clock({0}, 1);
  base::MetricsRegistry metrics;
  const auto store = OpenEmbeddedStore({.directory = directory.path()}, clock, metrics);
  EXPECT_EQ(store.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(base::Message(store.status())), HasSubstr("format 2"));
}

}  // namespace
}  // namespace firewatch::server

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "--fill-disk") {
    return firewatch::server::FillDiskAndRecover(argv[2]);
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
