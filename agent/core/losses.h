// SPDX-License-Identifier: Apache-2.0
// The metric of one named loss. Whoever loses something asks for it by the constant that the kernel
// side uses too; the same constant gives the same counter in every room of the agent.
#pragma once

#include "base/metrics.h"
#include "bpf/include/losses.h"

namespace firewatch::agent {

// "ring_full", as /metrics and uploads show it. `loss` is below FW_LOSS_COUNT.
const char* LossName(fw_loss loss);

// firewatch_agent_lost_total{reason="ring_full"}. Valid as long as the registry.
base::Counter& LossCounter(base::MetricsRegistry& metrics, fw_loss loss);

}  // namespace firewatch::agent
