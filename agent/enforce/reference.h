// SPDX-License-Identifier: Apache-2.0
// The slow, obvious twin of bpf/packet.h and bpf/classify.h, against which both are tested: reads a
// frame by the standards and asks the rules one after another. Also answers "what would happen to
// this packet" where no kernel is at hand.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "agent/enforce/rule.h"

namespace firewatch::agent {

struct ReferencePacket {
  enum class Kind : uint8_t { kNotIp, kMalformed, kIp } kind = Kind::kNotIp;
  bool is_ipv6 = false;
  Address6 source, destination;  // IPv4: the low 32 bits
  std::optional<uint8_t> protocol;
  fw_fragment fragment = FW_FRAGMENT_NONE;
  std::optional<uint16_t> source_port, destination_port;
  std::optional<uint8_t> tcp_flags, icmp_type;
  bool cut = false;
  bool chain_too_long = false;
};

// RFC 791, 8200, 4302; 802.1Q and 802.1ad.
ReferencePacket ParseFrame(std::span<const uint8_t> frame);

bool Matches(const RuleMatch& match, const ReferencePacket& packet);

struct ReferenceVerdict {
  bool drop = false;                 // but for rates, which depend on time
  std::vector<size_t> reached;       // the rules that count the packet, in order
  std::optional<size_t> decided_by;  // the last of them, when it decides
};
ReferenceVerdict Judge(const RuleSet& rules, std::span<const uint8_t> frame);

}  // namespace firewatch::agent
