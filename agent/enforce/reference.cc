// SPDX-License-Identifier: Apache-2.0
#include "agent/enforce/reference.h"

#include <algorithm>

namespace firewatch::agent {
namespace {

using Bytes = std::span<const uint8_t>;

uint32_t Big(Bytes bytes, size_t at, size_t count) {
  uint32_t value = 0;
  for (size_t i = 0; i < count; ++i) value = value << 8 | bytes[at + i];
  return value;
}
uint64_t Big64(Bytes bytes, size_t at) {
  return uint64_t{Big(bytes, at, 4)} << 32 | Big(bytes, at + 4, 4);
}

bool IsExtension(uint8_t header) {
  for (const int known : {0, 43, 44, 51, 60, 135, 139, 140}) {
    if (header == known) return true;
  }
  return false;
}

// `rest`: what the IP packet has behind its headers.
void ParseTransport(Bytes rest, ReferencePacket* out) {
  const uint8_t protocol = *out->protocol;
  if ((protocol == kProtocolIcmp && !out->is_ipv6) ||
      (protocol == kProtocolIcmpv6 && out->is_ipv6)) {
    if (rest.empty()) {
      out->cut = true;
    } else {
      out->icmp_type = rest[0];
    }
    return;
  }
  if (protocol != kProtocolTcp && protocol != kProtocolUdp && protocol != kProtocolDccp &&
      protocol != kProtocolSctp && protocol != kProtocolUdpLite) {
    return;
  }
  if (rest.size() < 4) {
    out->cut = true;
    return;
  }
  out->source_port = static_cast<uint16_t>(Big(rest, 0, 2));
  out->destination_port = static_cast<uint16_t>(Big(rest, 2, 2));
  if (protocol != kProtocolTcp) return;
  if (rest.size() < 14) {
    out->cut = true;
  } else {
    out->tcp_flags = rest[13];
  }
}

void ParseIpv4(Bytes packet, ReferencePacket* out) {
  out->kind = ReferencePacket::Kind::kMalformed;
  if (packet.size() < 20 || packet[0] >> 4 != 4) return;
  const size_t header = (packet[0] & 15u) * 4;
  const size_t total = Big(packet, 2, 2);
  if (header < 20 || header > packet.size() || (total != 0 && total < header)) return;
  out->kind = ReferencePacket::Kind::kIp;
  out->source.low = Big(packet, 12, 4);
  out->destination.low = Big(packet, 16, 4);
  out->protocol = packet[9];
  const bool more = (packet[6] & 0x20) != 0;
  if ((Big(packet, 6, 2) & 0x1fff) != 0) {
    out->fragment = FW_FRAGMENT_LATER;
    return;
  }
  if (more) out->fragment = FW_FRAGMENT_FIRST;
  if (total != 0 && total < packet.size()) packet = packet.first(total);
  ParseTransport(packet.subspan(header), out);
}

void ParseIpv6(Bytes packet, ReferencePacket* out) {
  out->kind = ReferencePacket::Kind::kMalformed;
  if (packet.size() < 40 || packet[0] >> 4 != 6) return;
  out->kind = ReferencePacket::Kind::kIp;
  out->is_ipv6 = true;
  out->source = {Big64(packet, 8), Big64(packet, 16)};
  out->destination = {Big64(packet, 24), Big64(packet, 32)};
  const size_t payload = Big(packet, 4, 2);
  Bytes rest = packet.subspan(40);
  if (payload != 0 && payload < rest.size()) rest = rest.first(payload);
  uint8_t next = packet[6];
  for (int headers = 0; IsExtension(next); ++headers) {
    if (headers == 8) {
      out->chain_too_long = true;
      return;
    }
    if (rest.size() < 8) {
      out->cut = true;
      return;
    }
    const uint8_t here = next;
    next = rest[0];
    size_t length = (rest[1] + size_t{1}) * 8;
    if (here == 51) length = (rest[1] + size_t{2}) * 4;
    if (here == 44) {
      length = 8;
      const uint32_t field = Big(rest, 2, 2);
      if (field >> 3 != 0) {
        out->fragment = FW_FRAGMENT_LATER;
        if (!IsExtension(next)) out->protocol = next;
        return;
      }
      if ((field & 1) != 0) out->fragment = FW_FRAGMENT_FIRST;
    }
    rest = rest.subspan(std::min(length, rest.size()));
  }
  out->protocol = next;
  ParseTransport(rest, out);
}

bool Covers(const PrefixSet& set, const Address6& address, bool is_ipv6) {
  if (!is_ipv6) {
    const auto value = static_cast<uint32_t>(address.low);
    return std::any_of(set.prefixes4().begin(), set.prefixes4().end(), [&](const Prefix4& prefix) {
      return prefix.address <= value && value <= LastAddress(prefix);
    });
  }
  return std::any_of(set.prefixes6().begin(), set.prefixes6().end(), [&](const Prefix6& prefix) {
    return prefix.address <= address && address <= LastAddress(prefix);
  });
}

bool AddressMatches(const std::vector<std::shared_ptr<const PrefixSet>>& sets,
                    const Address6& address, bool is_ipv6) {
  return sets.empty() || std::any_of(sets.begin(), sets.end(), [&](const auto& set) {
           return Covers(*set, address, is_ipv6);
         });
}

bool PortMatches(const std::vector<PortRange>& ranges, const std::optional<uint16_t>& port) {
  if (ranges.empty()) return true;
  return port && std::any_of(ranges.begin(), ranges.end(), [&](const PortRange& range) {
           return range.first <= *port && *port <= range.last;
         });
}

}  // namespace

ReferencePacket ParseFrame(Bytes frame) {
  ReferencePacket out;
  if (frame.size() < 14) return out;
  size_t at = 12;
  for (int tags = 0; tags < 2; ++tags) {
    const uint32_t type = Big(frame, at, 2);
    if (type != 0x8100 && type != 0x88a8 && type != 0x9100) break;
    if (frame.size() < at + 6) return out;
    at += 4;
  }
  const uint32_t type = Big(frame, at, 2);
  if (type == 0x0800) ParseIpv4(frame.subspan(at + 2), &out);
  if (type == 0x86dd) ParseIpv6(frame.subspan(at + 2), &out);
  return out;
}

bool Matches(const RuleMatch& match, const ReferencePacket& packet) {
  if (match.family && (*match.family == FW_FAMILY_IPV6) != packet.is_ipv6) return false;
  if (!AddressMatches(match.source, packet.source, packet.is_ipv6)) return false;
  if (!AddressMatches(match.destination, packet.destination, packet.is_ipv6)) return false;
  if (!match.protocols.empty()) {
    if (!packet.protocol) return false;
    const auto& wanted = match.protocols;
    if (std::find(wanted.begin(), wanted.end(), *packet.protocol) == wanted.end()) return false;
  }
  if (!PortMatches(match.source_ports, packet.source_port)) return false;
  if (!PortMatches(match.destination_ports, packet.destination_port)) return false;
  if (match.flags_set != 0 || match.flags_clear != 0) {
    if (!packet.tcp_flags) return false;
    if ((*packet.tcp_flags & match.flags_set) != match.flags_set) return false;
    if ((*packet.tcp_flags & match.flags_clear) != 0) return false;
  }
  if (!match.icmp_types.empty()) {
    if (!packet.icmp_type) return false;
    const auto& wanted = match.icmp_types;
    if (std::find(wanted.begin(), wanted.end(), *packet.icmp_type) == wanted.end()) return false;
  }
  return match.fragments == 0 || (match.fragments & 1u << packet.fragment) != 0;
}

ReferenceVerdict Judge(const RuleSet& rules, Bytes frame) {
  ReferenceVerdict out;
  const ReferencePacket packet = ParseFrame(frame);
  if (packet.kind == ReferencePacket::Kind::kNotIp) return out;
  const bool doubtful =
      packet.kind == ReferencePacket::Kind::kMalformed || packet.cut || packet.chain_too_long;
  if (doubtful && rules.drop_malformed) {
    out.drop = true;
    return out;
  }
  if (packet.kind == ReferencePacket::Kind::kMalformed) return out;
  for (size_t i = 0; i < rules.rules.size(); ++i) {
    const Rule& rule = rules.rules[i];
    if (!Matches(rule.match, packet)) continue;
    out.reached.push_back(i);
    if (rule.action == FW_ACTION_COUNT || rule.action == FW_ACTION_SAMPLE) continue;
    out.decided_by = i;
    out.drop = rule.action == FW_ACTION_DROP;
    return out;
  }
  return out;
}

}  // namespace firewatch::agent
