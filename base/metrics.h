// SPDX-License-Identifier: Apache-2.0
// Counters and gauges with a Prometheus text page. Metrics are created once at start and live as
// long as the registry; adding to one is a relaxed atomic operation from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/mutex.h"

namespace firewatch::base {

class Counter {
 public:
  void Add(uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

class Gauge {
 public:
  void Set(double value) { value_.store(value, std::memory_order_relaxed); }
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

// Any thread. References stay valid for the life of the registry. The same name and labels give
// the same object again; counters end in _total, units stand in the name (Prometheus' conventions).
class MetricsRegistry {
 public:
  Counter& AddCounter(std::string_view name, std::string_view help, MetricLabels labels = {})
      ABSL_LOCKS_EXCLUDED(mutex_);
  Gauge& AddGauge(std::string_view name, std::string_view help, MetricLabels labels = {})
      ABSL_LOCKS_EXCLUDED(mutex_);
  // `read` is called on each exposition, on the caller's thread; it must be quick and thread-safe.
  void AddCallback(std::string_view name, std::string_view help, std::string_view type,
                   MetricLabels labels, std::function<double()> read) ABSL_LOCKS_EXCLUDED(mutex_);

  // Samples whose labels change in the course of time; replaces what had the name. As `read` above.
  using Series = std::vector<std::pair<MetricLabels, double>>;
  void AddSeries(std::string_view name, std::string_view help, std::string_view type,
                 std::function<Series()> read) ABSL_LOCKS_EXCLUDED(mutex_);

  // Cumulative counts: counts[i] is what is at most bounds[i] (ascending); `count` is all.
  struct Histogram {
    std::vector<double> bounds;
    std::vector<uint64_t> counts;
    uint64_t count = 0;
    double sum = 0;
  };
  // As AddSeries; no labels.
  void AddHistogram(std::string_view name, std::string_view help, std::function<Histogram()> read)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Prometheus text format 0.0.4: one HELP and TYPE line per name, label values escaped.
  std::string Expose() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Metric {
    std::string name, help, type;
    MetricLabels labels;
    Counter counter;
    Gauge gauge;
    std::function<double()> read;
    std::function<Series()> read_series;
    std::function<Histogram()> read_histogram;
  };
  Metric& FindOrAdd(std::string_view name, std::string_view help, std::string_view type,
                    MetricLabels labels) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable Mutex mutex_;
  std::deque<Metric> metrics_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace firewatch::base
