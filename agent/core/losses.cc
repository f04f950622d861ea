// SPDX-License-Identifier: Apache-2.0
#include "agent/core/losses.h"

#include <array>

#include "base/check.h"

namespace firewatch::agent {
namespace {

constexpr std::array<const char*, FW_LOSS_COUNT> kNames = {
#define FW_LOSS_NAME(constant, name, text) name,
    FW_LOSSES(FW_LOSS_NAME)
#undef FW_LOSS_NAME
};

}  // namespace

const char* LossName(fw_loss loss) {
  CHECK(loss < FW_LOSS_COUNT);
  return kNames[loss];
}

base::Counter& LossCounter(base::MetricsRegistry& metrics, fw_loss loss) {
  return metrics.AddCounter("firewatch_agent_lost_total",
                            "What was lost between a timer's tick and an acknowledged upload.",
                            {{"reason", LossName(loss)}});
}

}  // namespace firewatch::agent
