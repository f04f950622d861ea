// SPDX-License-Identifier: Apache-2.0
#include "base/metrics.h"

#include <gtest/gtest.h>

namespace firewatch::base {
namespace {

TEST(MetricsTest, ExposesOneBlockPerNameWithEscapedLabels) {
  MetricsRegistry registry;
  registry.AddCounter("b_total", "B.", {{"why", "a\"b\\c\nd"}}).Add(3);
  registry.AddGauge("a_bytes", "A.").Set(1.5);
  registry.AddCounter("b_total", "B.", {{"why", "x"}}).Add();
  EXPECT_EQ(registry.Expose(),
            "# HELP a_bytes A.\n# TYPE a_bytes gauge\na_bytes 1.5\n"
            "# HELP b_total B.\n# TYPE b_total counter\n"
            "b_total{why=\"a\\\"b\\\\c\\nd\"} 3\nb_total{why=\"x\"} 1\n");
}

TEST(MetricsTest, SameNameAndLabelsIsTheSameCounter) {
  MetricsRegistry registry;
  Counter& first = registry.AddCounter("x_total", "X.", {{"a", "1"}});
  EXPECT_EQ(&first, &registry.AddCounter("x_total", "X.", {{"a", "1"}}));
  EXPECT_NE(&first, &registry.AddCounter("x_total", "X.", {{"a", "2"}}));
}

TEST(MetricsTest, CallbackIsReadAtExposition) {
  MetricsRegistry registry;
  double value = 1;
  registry.AddCallback("y", "Y.", "gauge", {}, [&value] { return value; });
  value = 2;
  EXPECT_EQ(registry.Expose(), "# HELP y Y.\n# TYPE y gauge\ny 2\n");
}

TEST(MetricsTest, SeriesMayHaveOtherLabelsAtEachExposition) {
  MetricsRegistry registry;
  MetricsRegistry::Series now = {{{{"program", "a"}}, 1}};
  registry.AddSeries("z_total", "Z.", "counter", [&now] { return now; });
  now = {{{{"program", "b"}}, 2}, {{{"program", "c"}}, 3}};
  EXPECT_EQ(registry.Expose(),
            "# HELP z_total Z.\n# TYPE z_total counter\n"
            "z_total{program=\"b\"} 2\nz_total{program=\"c\"} 3\n");
}

TEST(MetricsTest, HistogramHasCumulativeBucketsSumAndCount) {
  MetricsRegistry metrics;
  metrics.AddHistogram("rtt_seconds", "Round trips.", [] {
    return MetricsRegistry::Histogram{
        .bounds = {0.001, 0.5}, .counts = {2, 3}, .count = 4, .sum = 1.25};
  });
  EXPECT_EQ(metrics.Expose(),
            "# HELP rtt_seconds Round trips.\n# TYPE rtt_seconds histogram\n"
            "rtt_seconds_bucket{le=\"0.001\"} 2\nrtt_seconds_bucket{le=\"0.5\"} 3\n"
            "rtt_seconds_bucket{le=\"+Inf\"} 4\nrtt_seconds_sum 1.25\nrtt_seconds_count 4\n");
}

}  // namespace
}  // namespace firewatch::base
