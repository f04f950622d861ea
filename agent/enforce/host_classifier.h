// SPDX-License-Identifier: Apache-2.0
// The kernel's parser and classifier (bpf/packet.h, bpf/classify.h) as a function of this process,
// under the sanitizers of its build. For tests and fuzzing.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "agent/enforce/image.h"
#include "bpf/include/firewall.h"

namespace firewatch::agent {

struct HostVerdict {
  bool drop = false;
  bool by_address = false;      // an address alone has decided (FW_ENTRY_RULE)
  std::vector<size_t> reached;  // as ReferenceVerdict's
  std::optional<size_t> decided_by;
  bool broken = false;
  fw_packet packet{};
};

// Rates let everything through, nothing expires.
HostVerdict JudgeOnHost(const Image& image, std::span<const uint8_t> frame);

}  // namespace firewatch::agent
