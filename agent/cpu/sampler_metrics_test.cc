// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/sampler_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/core/losses.h"

namespace firewatch::agent {
namespace {

using ::testing::HasSubstr;

TEST(SamplerMetricsTest, TotalsBecomeDifferences) {
  base::MetricsRegistry registry;
  SamplerMetrics metrics(registry);
  std::array<uint64_t, FW_LOSS_COUNT> losses{};
  losses[FW_LOSS_RING_FULL] = 5;
  metrics.Refresh(losses, {});
  losses[FW_LOSS_RING_FULL] = 7;
  metrics.Refresh(losses, {});
  metrics.Refresh(losses, {});
  EXPECT_EQ(LossCounter(registry, FW_LOSS_RING_FULL).value(), 7u);
  EXPECT_EQ(LossCounter(registry, FW_LOSS_SCRATCH_BUSY).value(), 0u);
}

TEST(SamplerMetricsTest, ASecondSamplerAddsToTheFirst) {
  // One after the other in one process, as after a change of the rate.
  base::MetricsRegistry registry;
  std::array<uint64_t, FW_LOSS_COUNT> losses{};
  losses[FW_LOSS_RING_FULL] = 5;
  SamplerMetrics(registry).Refresh(losses, {});
  SamplerMetrics(registry).Refresh(losses, {});
  EXPECT_EQ(LossCounter(registry, FW_LOSS_RING_FULL).value(), 10u);
}

TEST(SamplerMetricsTest, ProgramsHaveALabelEach) {
  base::MetricsRegistry registry;
  SamplerMetrics metrics(registry);
  metrics.Refresh({}, {{.name = "tick", .run_time_ns = 300, .run_count = 2, .missed = 1},
                       {.name = "on_fork", .run_time_ns = 40, .run_count = 1}});
  metrics.Refresh({}, {{.name = "tick", .run_time_ns = 450, .run_count = 3, .missed = 1}});
  const std::string page = registry.Expose();
  EXPECT_THAT(page, HasSubstr("firewatch_sampler_bpf_run_nanoseconds_total{program=\"tick\"} 450"));
  EXPECT_THAT(page, HasSubstr("firewatch_sampler_bpf_runs_total{program=\"tick\"} 3"));
  EXPECT_THAT(page, HasSubstr("firewatch_sampler_bpf_missed_total{program=\"tick\"} 1"));
  EXPECT_THAT(page, HasSubstr("firewatch_sampler_bpf_runs_total{program=\"on_fork\"} 1"));
}

}  // namespace
}  // namespace firewatch::agent
