// SPDX-License-Identifier: Apache-2.0
// A rule of the firewall as the user means it. What the kernel gets is made of it by image.h; what
// a packet should meet is said, slowly, by reference.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/enforce/prefix.h"
#include "bpf/include/firewall.h"

namespace firewatch::agent {

inline constexpr uint8_t kProtocolIcmp = 1, kProtocolTcp = 6, kProtocolUdp = 17, kProtocolDccp = 33,
                         kProtocolIcmpv6 = 58, kProtocolSctp = 132, kProtocolUdpLite = 136;

struct PortRange {
  uint16_t first = 0;
  uint16_t last = 0;
  friend bool operator==(const PortRange&, const PortRange&) = default;
};

// Fields that are empty allow anything. A field that a packet does not have, or whose bytes are
// missing, does not match a rule that asks for it.
struct RuleMatch {
  // Sets are shared between rules. An address matches when any of them has it; a set without
  // prefixes (an empty list file) has none.
  std::vector<std::shared_ptr<const PrefixSet>> source, destination;
  std::vector<uint8_t> protocols;
  std::vector<PortRange> source_ports, destination_ports;
  uint8_t flags_set = 0, flags_clear = 0;  // of TCP; 0 and 0: not looked at
  std::vector<uint8_t> icmp_types;         // of ICMP and ICMPv6, as `protocols` says
  uint8_t fragments = 0;                   // bit per enum fw_fragment; 0: not looked at
  std::optional<uint8_t> family;           // FW_FAMILY_…
};

struct RateLimit {
  uint64_t packets_per_s = 0, burst_packets = 0;  // 0: no such limit
  uint64_t bits_per_s = 0, burst_bytes = 0;
  fw_rate_per per = FW_PER_RULE;
};

struct Rule {
  std::string name;  // unique in its set; counters belong to it over generations
  std::string comment;
  RuleMatch match;
  fw_action action = FW_ACTION_DROP;
  uint32_t sample_n = 0;
  RateLimit rate;
  uint32_t priority = 1'000;            // the lowest is asked first, then the order of the file
  uint64_t ttl_ms = 0;                  // from the load on; 0: for ever
  std::string match_text, action_text;  // one line each, for people
};

struct RuleSet {
  std::vector<Rule> rules;  // in the order in which they are asked
  bool drop_malformed = false;
};

}  // namespace firewatch::agent
