// SPDX-License-Identifier: Apache-2.0
// Random rules and frames that are likely to meet: addresses come from few bits and from the edges
// of prefixes, fields from few values. For property tests; the same seed gives the same.
#pragma once

#include <algorithm>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "agent/enforce/frame_builder.h"
#include "agent/enforce/image.h"
#include "agent/enforce/rule.h"

namespace firewatch::agent {

class RandomRules {
 public:
  explicit RandomRules(uint64_t seed) : random_(seed) {}

  uint64_t Below(uint64_t n) { return random_() % n; }
  bool OneIn(uint64_t n) { return Below(n) == 0; }

  RuleSet Rules() {
    RuleSet out;
    shared_.clear();
    edges4_.clear();
    edges6_.clear();
    out.drop_malformed = OneIn(8);
    constexpr size_t kCounts[] = {1, 3, 20, 64, 65, 128, 129, 256};
    const size_t count = kCounts[Below(8)];
    for (size_t i = 0; i < count; ++i) out.rules.push_back(OneRule(i));
    return out;
  }

  std::vector<uint8_t> Frame() {
    FrameBuilder frame;
    for (uint64_t tags = OneIn(4) ? Below(4) : 0; tags > 0; --tags) {
      frame.Vlan(static_cast<uint16_t>(Below(4096)), OneIn(2) ? 0x88a8 : 0x8100);
    }
    if (OneIn(50)) return frame.Type(0x0806).Zeros(28).Bytes();
    const uint8_t protocol = Protocol();
    if (OneIn(2)) {
      const uint16_t fragment = OneIn(6) ? static_cast<uint16_t>(Below(2) << 13 | Below(3)) : 0;
      frame.Ipv4(Address4(), Address4(), protocol, fragment, OneIn(6) ? Below(11) : 0);
    } else {
      std::vector<uint8_t> chain;
      if (OneIn(3)) {
        constexpr uint8_t kHeaders[] = {0, 43, 44, 51, 60, 135, 139, 140};
        for (uint64_t i = Below(OneIn(8) ? 11 : 4); i > 0; --i) chain.push_back(kHeaders[Below(8)]);
      }
      frame.Ipv6(AnAddress6(), AnAddress6(), chain.empty() ? protocol : chain[0]);
      for (size_t i = 0; i < chain.size(); ++i) {
        const uint8_t next = i + 1 < chain.size() ? chain[i + 1] : protocol;
        if (chain[i] == 44) {
          frame.FragmentHeader(next, static_cast<uint16_t>(Below(3) << 3 | Below(2)));
        } else if (chain[i] == 51) {
          frame.U8(next).U8(4).Zeros(22);
        } else {
          frame.Extension(next, static_cast<uint8_t>(OneIn(4) ? Below(3) : 0));
        }
      }
    }
    if (protocol == kProtocolTcp) {
      frame.Tcp(Port(), Port(), static_cast<uint8_t>(Below(256)));
    } else if (protocol == kProtocolIcmp || protocol == kProtocolIcmpv6) {
      frame.Icmp(static_cast<uint8_t>(OneIn(2) ? Below(256) : Below(4) * 8));
    } else {
      frame.Udp(Port(), Port());
    }
    std::vector<uint8_t> bytes = frame.Bytes();
    // Hostile: any byte changed, or the end missing, or padding that looks like ports.
    if (OneIn(6)) {
      const size_t from = std::min(frame.ip_at(), bytes.size() - 1);
      bytes[from + Below(bytes.size() - from)] = static_cast<uint8_t>(Below(256));
    }
    if (OneIn(8)) bytes.resize(14 + Below(bytes.size() - 13));
    if (OneIn(8)) bytes.resize(bytes.size() + Below(20), 0x50);
    return bytes;
  }

 private:
  uint16_t Port() {
    constexpr uint16_t kPorts[] = {0, 22, 53, 80, 255, 256, 443, 8080, 65'535};
    return OneIn(4) ? static_cast<uint16_t>(Below(65'536)) : kPorts[Below(9)];
  }
  uint8_t Protocol() {
    constexpr uint8_t kProtocols[] = {1, 6, 17, 33, 47, 58, 132, 136};
    return OneIn(20) ? static_cast<uint8_t>(Below(256)) : kProtocols[Below(8)];
  }
  uint32_t Address4() {
    if (!edges4_.empty() && !OneIn(4)) {
      return edges4_[Below(edges4_.size())] + static_cast<uint32_t>(Below(3)) - 1;
    }
    return OneIn(2) ? static_cast<uint32_t>(random_())
                    : Ip4(10, 0, static_cast<uint8_t>(Below(4)), static_cast<uint8_t>(Below(256)));
  }
  Address6 AnAddress6() {
    if (!edges6_.empty() && !OneIn(4)) {
      Address6 address = edges6_[Below(edges6_.size())];
      if (OneIn(3)) ++address.low;
      if (OneIn(3)) --address.low;
      if (OneIn(6)) ++address.high;
      return address;
    }
    return {random_(), random_()};
  }
  std::shared_ptr<const PrefixSet> Set() {
    if (!shared_.empty() && OneIn(3)) return shared_[Below(shared_.size())];
    auto set = std::make_shared<PrefixSet>();
    for (uint64_t i = OneIn(20) ? 0 : 1 + Below(OneIn(5) ? 200 : 5); i > 0; --i) {
      if (OneIn(3)) {
        const auto length = static_cast<uint8_t>(OneIn(4) ? Below(129) : 40 + Below(89));
        Address6 base = OneIn(2) ? Address6{random_(), random_()} : AnAddress6();
        const Prefix6 all{{}, length};
        const Address6 mask = LastAddress(all);  // the host bits
        base = {base.high & ~mask.high, base.low & ~mask.low};
        if (OneIn(50)) base = {};
        const Prefix6 prefix{base, length};
        set->Add(prefix);
        edges6_.push_back(prefix.address);
        edges6_.push_back(LastAddress(prefix));
      } else {
        const auto length = static_cast<uint8_t>(OneIn(4) ? Below(33) : 16 + Below(17));
        const uint32_t mask = LastAddress(Prefix4{0, length});
        const Prefix4 prefix{Address4() & ~mask, length};
        set->Add(prefix);
        edges4_.push_back(prefix.address);
        edges4_.push_back(LastAddress(prefix));
      }
    }
    set->Close();
    shared_.push_back(set);
    return set;
  }
  void Ports(std::vector<PortRange>* out) {
    for (uint64_t i = 1 + Below(3); i > 0; --i) {
      const uint16_t a = Port();
      const uint16_t b = OneIn(2) ? a : Port();
      out->push_back({std::min(a, b), std::max(a, b)});
    }
  }
  Rule OneRule(size_t number) {
    Rule rule;
    rule.name = "rule" + std::to_string(number);
    RuleMatch& match = rule.match;
    if (!OneIn(3)) match.source = {Set()};
    if (OneIn(8)) match.source.push_back(Set());
    if (OneIn(3)) match.destination = {Set()};
    if (OneIn(3)) match.protocols = {Protocol()};
    if (OneIn(8)) match.protocols.push_back(Protocol());
    if (OneIn(5)) Ports(&match.source_ports);
    if (OneIn(4)) Ports(&match.destination_ports);
    if (OneIn(6)) {
      match.flags_set = static_cast<uint8_t>(1u << Below(8));
      match.flags_clear = static_cast<uint8_t>(1u << Below(8) & ~match.flags_set);
    } else if (OneIn(6)) {
      match.protocols = {OneIn(2) ? kProtocolIcmp : kProtocolIcmpv6};
      match.icmp_types = {static_cast<uint8_t>(Below(4) * 8)};
    }
    if (OneIn(8)) match.fragments = static_cast<uint8_t>(1 + Below(7));
    if (OneIn(8)) match.family = static_cast<uint8_t>(Below(2));
    constexpr fw_action kActions[] = {FW_ACTION_DROP, FW_ACTION_PASS, FW_ACTION_COUNT,
                                      FW_ACTION_SAMPLE};
    rule.action = kActions[Below(4)];
    rule.sample_n = static_cast<uint32_t>(1 + Below(5));
    return rule;
  }

  std::mt19937_64 random_;
  std::vector<std::shared_ptr<const PrefixSet>> shared_;
  std::vector<uint32_t> edges4_;
  std::vector<Address6> edges6_;
};

// Options for a set whose rules have counters 0, 1, 2, …
inline ImageOptions PlainOptions(const RuleSet& rules) {
  ImageOptions options;
  for (size_t i = 0; i < rules.rules.size(); ++i) {
    options.slots.push_back(static_cast<uint16_t>(i));
    options.bucket_keys.push_back(static_cast<uint32_t>(i + 1));
  }
  return options;
}

}  // namespace firewatch::agent
