// SPDX-License-Identifier: Apache-2.0
// Puts the parts of the embedded store together: keys.h and rows.h (what is stored), database.h
// (RocksDB), writer.h (append), label_reader.h, merge_reader.h and connections_reader.h
// (questions), retention.h.
#include "server/store/embedded/embedded_store.h"

#include <chrono>
#include <string_view>
#include <thread>
#include <utility>

#include "base/logging.h"
#include "base/mutex.h"
#include "base/status.h"
#include "server/store/embedded/connections_reader.h"
#include "server/store/embedded/database.h"
#include "server/store/embedded/label_reader.h"
#include "server/store/embedded/merge_reader.h"
#include "server/store/embedded/partition_tables.h"
#include "server/store/embedded/retention.h"
#include "server/store/embedded/stats_index.h"
#include "server/store/embedded/writer.h"

namespace firewatch::server {
namespace {

constexpr std::string_view kFormatKey = "format";
constexpr std::string_view kFormat = "1";
constexpr std::string_view kHealthKey = "health";
constexpr auto kRetentionInterval = std::chrono::minutes(1);
// Some 40 bytes each: the ids of about four busy hours of a small fleet.
constexpr size_t kMaxOpenEntries = 1'500'000;

struct StoreMetrics {
  explicit StoreMetrics(base::MetricsRegistry& registry)
      : windows(registry.AddCounter("firewatch_store_windows_total", "windows stored")),
        profiles(registry.AddCounter("firewatch_store_profiles_total", "profiles stored")),
        samples(registry.AddCounter("firewatch_store_samples_total",
                                    "distinct stack and label rows stored")),
        connections(registry.AddCounter("firewatch_store_connections_total",
                                        "sums of connections stored, one per peer and window")),
        duplicates(registry.AddCounter("firewatch_store_duplicates_total",
                                       "windows that were there already")),
        refused_disk_full(registry.AddCounter("firewatch_store_refused_total",
                                              "windows that were not stored",
                                              {{"reason", "disk_full"}})),
        refused_invalid(registry.AddCounter("firewatch_store_refused_total",
                                            "windows that were not stored",
                                            {{"reason", "invalid"}})),
        refused_error(registry.AddCounter("firewatch_store_refused_total",
                                          "windows that were not stored", {{"reason", "error"}})) {}

  void CountRefusal(const absl::Status& status) {
    if (status.code() == absl::StatusCode::kResourceExhausted) return refused_disk_full.Add();
    if (status.code() == absl::StatusCode::kInvalidArgument) return refused_invalid.Add();
    refused_error.Add();
  }

  base::Counter &windows, &profiles, &samples, &connections, &duplicates;
  base::Counter &refused_disk_full, &refused_invalid, &refused_error;
};

// How often and how long a kind of query ran.
class QueryTimer {
 public:
  struct Metric {
    Metric(base::MetricsRegistry& registry, std::string_view kind)
        : count(registry.AddCounter("firewatch_store_queries_total", "queries answered",
                                    {{"kind", std::string(kind)}})),
          microseconds(registry.AddCounter("firewatch_store_query_microseconds_total",
                                           "time spent in queries",
                                           {{"kind", std::string(kind)}})) {}
    base::Counter &count, &microseconds;
  };
  explicit QueryTimer(Metric& metric) : metric_(metric) {}
  QueryTimer(const QueryTimer&) = delete;
  QueryTimer& operator=(const QueryTimer&) = delete;
  ~QueryTimer() {
    const auto spent = std::chrono::steady_clock::now() - start_;
    metric_.count.Add();
    metric_.microseconds.Add(static_cast<uint64_t>(
        std::chrono::duration_cast<std::chrono::microseconds>(spent).count()));
  }

 private:
  Metric& metric_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Calls `work` on a thread of its own when woken, and every interval. The destructor waits for it.
class PeriodicThread {
 public:
  PeriodicThread(std::chrono::nanoseconds interval, std::function<void()> work)
      : interval_(interval), work_(std::move(work)), thread_([this] { Run(); }) {}
  ~PeriodicThread() {
    {
      base::MutexLock lock(mutex_);
      stop_ = true;
    }
    wake_.NotifyAll();
    thread_.join();
  }
  PeriodicThread(const PeriodicThread&) = delete;
  PeriodicThread& operator=(const PeriodicThread&) = delete;

  void Wake() ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      base::MutexLock lock(mutex_);
      woken_ = true;
    }
    wake_.NotifyAll();
  }

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mutex_) {
    while (true) {
      {
        base::MutexLock lock(mutex_);
        const auto deadline = std::chrono::steady_clock::now() + interval_;
        while (!stop_ && !woken_) {
          const auto left = deadline - std::chrono::steady_clock::now();
          if (left <= std::chrono::nanoseconds::zero() || !wake_.WaitFor(mutex_, left)) break;
        }
        if (stop_) return;
        woken_ = false;
      }
      work_();
    }
  }

  const std::chrono::nanoseconds interval_;
  const std::function<void()> work_;
  base::Mutex mutex_;
  base::CondVar wake_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: everything above is there when it starts
};

class EmbeddedStore final : public ProfileStore {
 public:
  EmbeddedStore(const EmbeddedStoreOptions& options, std::unique_ptr<Database> database,
                const base::Clock& clock, base::MetricsRegistry& metrics)
      : min_free_bytes_(options.min_free_bytes),
        clock_(clock),
        metrics_(metrics),
        labels_metric_(metrics, "labels"),
        series_metric_(metrics, "series"),
        merge_metric_(metrics, "merge"),
        connections_metric_(metrics, "connections"),
        disk_bytes_(metrics.AddGauge("firewatch_store_disk_bytes", "disk that the store takes")),
        database_(std::move(database)),
        partitions_(kMaxOpenEntries),
        writer_(*database_, partitions_, stats_, clock),
        retention_(*database_, partitions_, stats_,
                   {.hours = options.retention_hours, .bytes = options.retention_bytes}, metrics) {}

  absl::Status Prepare();
  void StartRetention() {
    retention_thread_.emplace(kRetentionInterval, [this] { RetentionTick(); });
  }

  absl::Status Append(const WindowBatch& batch, bool* duplicate) override;
  absl::StatusOr<std::vector<std::string>> LabelNames(const Query& query) override {
    const QueryTimer timer(labels_metric_);
    return ReadLabelNames(*database_, query);
  }
  absl::StatusOr<std::vector<std::string>> LabelValues(const Query& query,
                                                       std::string_view name) override {
    const QueryTimer timer(labels_metric_);
    return ReadLabelValues(*database_, query, name);
  }
  absl::StatusOr<std::vector<SeriesPoints>> Series(const Query& query, int64_t step_ms) override {
    const QueryTimer timer(series_metric_);
    return ReadSeries(*database_, query, step_ms);
  }
  absl::StatusOr<profile::Profile> Merge(const Query& query) override {
    const QueryTimer timer(merge_metric_);
    return MergeReader(*database_, query).Run();
  }
  absl::StatusOr<ConnectionReport> Connections(const Query& query) override {
    const QueryTimer timer(connections_metric_);
    return ReadConnections(*database_, query);
  }
  absl::StatusOr<StoreStats> Stats() override;
  absl::Status CheckHealth() override;
  absl::Status ApplyRetention(int64_t now_ms) override {
    const absl::Status status = retention_.Apply(now_ms);
    disk_bytes_.Set(static_cast<double>(database_->DiskBytes()));
    return status;
  }

 private:
  absl::Status CheckFreeSpace() const;
  void RetentionTick();

  const uint64_t min_free_bytes_;
  const base::Clock& clock_;
  StoreMetrics metrics_;
  QueryTimer::Metric labels_metric_, series_metric_, merge_metric_, connections_metric_;
  base::Gauge& disk_bytes_;
  const std::unique_ptr<Database> database_;
  OpenPartitions partitions_;
  StatsIndex stats_;
  Writer writer_;
  Retention retention_;
  base::Mutex health_mutex_;
  uint64_t health_probe_ ABSL_GUARDED_BY(health_mutex_) = 0;
  std::optional<PeriodicThread> retention_thread_;  // last: uses everything above
};

absl::Status EmbeddedStore::Prepare() {
  ASSIGN_OR_RETURN(const std::optional<std::string> format,
                   database_->Get(Table::kMeta, kFormatKey));
  if (format && *format != kFormat) {
    return base::FailedPrecondition("the store has format {}, this server reads {}", *format,
                                    kFormat);
  }
  if (!format) {
    WriteSet rows;
    rows.Put(Table::kMeta, kFormatKey, kFormat);
    RETURN_IF_ERROR(database_->Write(rows));
  }
  return stats_.Load(database_->NewCursor(Table::kPartitions));
}

absl::Status EmbeddedStore::CheckFreeSpace() const {
  ASSIGN_OR_RETURN(const uint64_t free_bytes, database_->FreeBytes());
  if (free_bytes >= min_free_bytes_) return absl::OkStatus();
  // Refused before RocksDB meets the end of the disk: what is left is for its compactions.
  return base::ResourceExhausted("disk full: {} MiB left, {} MiB are kept free", free_bytes >> 20,
                                 min_free_bytes_ >> 20);
}

absl::Status EmbeddedStore::Append(const WindowBatch& batch, bool* duplicate) {
  *duplicate = false;
  AppendResult result;
  absl::Status status = CheckFreeSpace();
  if (status.ok()) status = writer_.Append(batch, &result);
  if (!status.ok()) {
    metrics_.CountRefusal(status);
    return status;
  }
  *duplicate = result.duplicate;
  if (result.duplicate) {
    metrics_.duplicates.Add();
  } else {
    metrics_.windows.Add();
    metrics_.profiles.Add(batch.series.size());
    metrics_.samples.Add(result.samples);
    metrics_.connections.Add(result.edges);
  }
  return absl::OkStatus();
}

absl::StatusOr<StoreStats> EmbeddedStore::Stats() {
  StoreStats stats;
  stats_.Fill(&stats);
  ASSIGN_OR_RETURN(const uint64_t dropped, ReadDroppedWindows(*database_));
  stats.windows += dropped;
  stats.duplicates = metrics_.duplicates.value();
  stats.disk_bytes = database_->DiskBytes();
  disk_bytes_.Set(static_cast<double>(stats.disk_bytes));
  if (retention_.OverBytes()) retention_thread_->Wake();
  return stats;
}

absl::Status EmbeddedStore::CheckHealth() {
  RETURN_IF_ERROR(CheckFreeSpace());
  base::MutexLock lock(health_mutex_);
  const std::string probe = fmt::format("{}-{}", clock_.MonotonicNs(), ++health_probe_);
  WriteSet rows;
  rows.Put(Table::kMeta, kHealthKey, probe);
  RETURN_IF_ERROR(database_->Write(rows));
  ASSIGN_OR_RETURN(const std::optional<std::string> read, database_->Get(Table::kMeta, kHealthKey));
  if (read != probe) return base::DataLoss("row {} does not hold what was written", kHealthKey);
  return absl::OkStatus();
}

void EmbeddedStore::RetentionTick() {
  const absl::Status status = ApplyRetention(clock_.Now().unix_ms());
  if (!status.ok()) spdlog::warn("{}", base::ToString(status));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ProfileStore>> OpenEmbeddedStore(EmbeddedStoreOptions options,
                                                                const base::Clock& clock,
                                                                base::MetricsRegistry& metrics) {
  ASSIGN_OR_RETURN(
      std::unique_ptr<Database> database,
      Database::Open({.directory = options.directory, .cache_bytes = options.cache_bytes}));
  auto store = std::make_unique<EmbeddedStore>(options, std::move(database), clock, metrics);
  RETURN_IF_ERROR(base::Annotate(store->Prepare(), "open " + options.directory));
  store->StartRetention();
  return store;
}

}  // namespace firewatch::server
