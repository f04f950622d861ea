// SPDX-License-Identifier: Apache-2.0
#include "base/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>

namespace firewatch::base {
namespace {

std::string EscapeLabelValue(std::string_view value) {
  std::string out;
  for (char c : value) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '"') {
      out += "\\\"";
    } else if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

void FormatHistogram(std::string_view name, const MetricsRegistry::Histogram& value,
                     std::string* out) {
  const auto to = std::back_inserter(*out);
  for (size_t i = 0; i < value.bounds.size() && i < value.counts.size(); ++i) {
    fmt::format_to(to, "{}_bucket{{le=\"{}\"}} {}\n", name, value.bounds[i], value.counts[i]);
  }
  fmt::format_to(to, "{0}_bucket{{le=\"+Inf\"}} {1}\n{0}_sum {2}\n{0}_count {1}\n", name,
                 value.count, value.sum);
}

std::string FormatLabels(const MetricLabels& labels) {
  if (labels.empty()) return "";
  std::string out = "{";
  for (const auto& [name, value] : labels) {
    if (out.size() > 1) out += ',';
    out += fmt::format("{}=\"{}\"", name, EscapeLabelValue(value));
  }
  return out + "}";
}

}  // namespace

MetricsRegistry::Metric& MetricsRegistry::FindOrAdd(std::string_view name, std::string_view help,
                                                    std::string_view type, MetricLabels labels) {
  for (Metric& metric : metrics_) {
    if (metric.name == name && metric.labels == labels) return metric;
  }
  Metric& metric = metrics_.emplace_back();
  metric.name = name;
  metric.help = help;
  metric.type = type;
  metric.labels = std::move(labels);
  return metric;
}

Counter& MetricsRegistry::AddCounter(std::string_view name, std::string_view help,
                                     MetricLabels labels) {
  MutexLock lock(mutex_);
  return FindOrAdd(name, help, "counter", std::move(labels)).counter;
}

Gauge& MetricsRegistry::AddGauge(std::string_view name, std::string_view help,
                                 MetricLabels labels) {
  MutexLock lock(mutex_);
  return FindOrAdd(name, help, "gauge", std::move(labels)).gauge;
}

void MetricsRegistry::AddCallback(std::string_view name, std::string_view help,
                                  std::string_view type, MetricLabels labels,
                                  std::function<double()> read) {
  MutexLock lock(mutex_);
  FindOrAdd(name, help, type, std::move(labels)).read = std::move(read);
}

void MetricsRegistry::AddSeries(std::string_view name, std::string_view help, std::string_view type,
                                std::function<Series()> read) {
  MutexLock lock(mutex_);
  FindOrAdd(name, help, type, {}).read_series = std::move(read);
}

void MetricsRegistry::AddHistogram(std::string_view name, std::string_view help,
                                   std::function<Histogram()> read) {
  MutexLock lock(mutex_);
  FindOrAdd(name, help, "histogram", {}).read_histogram = std::move(read);
}

std::string MetricsRegistry::Expose() const {
  MutexLock lock(mutex_);
  // Grouped by name (the format wants one block per name), names sorted so that a diff is readable.
  std::map<std::string_view, std::vector<const Metric*>> by_name;
  for (const Metric& metric : metrics_) by_name[metric.name].push_back(&metric);
  std::string out;
  for (const auto& [name, group] : by_name) {
    fmt::format_to(std::back_inserter(out), "# HELP {} {}\n# TYPE {} {}\n", name,
                   group.front()->help, name, group.front()->type);
    for (const Metric* metric : group) {
      const std::string labels = FormatLabels(metric->labels);
      if (metric->read_histogram) {
        FormatHistogram(name, metric->read_histogram(), &out);
      } else if (metric->read_series) {
        for (const auto& [series, value] : metric->read_series()) {
          fmt::format_to(std::back_inserter(out), "{}{} {}\n", name, FormatLabels(series), value);
        }
      } else if (metric->read) {
        fmt::format_to(std::back_inserter(out), "{}{} {}\n", name, labels, metric->read());
      } else if (metric->type == "counter") {
        fmt::format_to(std::back_inserter(out), "{}{} {}\n", name, labels, metric->counter.value());
      } else {
        fmt::format_to(std::back_inserter(out), "{}{} {}\n", name, labels, metric->gauge.value());
      }
    }
  }
  return out;
}

}  // namespace firewatch::base
