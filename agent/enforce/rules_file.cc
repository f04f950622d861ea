// SPDX-License-Identifier: Apache-2.0
#include "agent/enforce/rules_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <set>
#include <span>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "agent/core/config_node.h"
#include "base/hash.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

constexpr ConfigLimits kLimits{.max_bytes = size_t{16} << 20, .max_nodes = 400'000, .max_depth = 8};
constexpr uint64_t kMaxTtlMs = uint64_t{366} * 86'400'000;
// FW_TOKENS_EACH for each must stay below 2^63 (bpf/buckets.h).
constexpr uint64_t kMaxBurstPackets = 1'000'000'000;
constexpr uint64_t kMaxBurstBytes = 1'000'000'000;
constexpr uint64_t kMinBurstBytes = 2048;  // a bucket that never holds a frame would pass none
constexpr uint64_t kMaxRate = 1'000'000'000'000;
constexpr size_t kMaxPortRanges = 64;

struct Word {
  std::string_view name;
  uint32_t value;
};
constexpr Word kProtocols[] = {{"icmp", kProtocolIcmp},
                               {"tcp", kProtocolTcp},
                               {"udp", kProtocolUdp},
                               {"dccp", kProtocolDccp},
                               {"icmpv6", kProtocolIcmpv6},
                               {"sctp", kProtocolSctp},
                               {"udplite", kProtocolUdpLite},
                               {"gre", 47},
                               {"esp", 50},
                               {"ah", 51},
                               {"igmp", 2},
                               {"ipip", 4},
                               {"ipv6", 41},
                               {"ospf", 89},
                               {"vrrp", 112}};
constexpr Word kFlags[] = {{"fin", 1},  {"syn", 2},  {"rst", 4},  {"psh", 8},
                           {"ack", 16}, {"urg", 32}, {"ece", 64}, {"cwr", 128}};
constexpr Word kIcmpTypes[] = {
    {"echo-reply", 0},      {"destination-unreachable", 3}, {"redirect", 5},
    {"echo-request", 8},    {"router-advertisement", 9},    {"router-solicitation", 10},
    {"time-exceeded", 11},  {"parameter-problem", 12},      {"timestamp-request", 13},
    {"timestamp-reply", 14}};
constexpr Word kIcmpv6Types[] = {{"destination-unreachable", 1},
                                 {"packet-too-big", 2},
                                 {"time-exceeded", 3},
                                 {"parameter-problem", 4},
                                 {"echo-request", 128},
                                 {"echo-reply", 129},
                                 {"router-solicitation", 133},
                                 {"router-advertisement", 134},
                                 {"neighbor-solicitation", 135},
                                 {"neighbor-advertisement", 136},
                                 {"redirect", 137}};
constexpr Word kFragments[] = {{"none", 1u << FW_FRAGMENT_NONE},
                               {"first", 1u << FW_FRAGMENT_FIRST},
                               {"later", 1u << FW_FRAGMENT_LATER},
                               {"any", 1u << FW_FRAGMENT_FIRST | 1u << FW_FRAGMENT_LATER}};

bool ParseNumber(std::string_view text, uint64_t max, uint64_t* out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return !text.empty() && error == std::errc() && end == text.data() + text.size() && *out <= max;
}

// One of `words`, or (max_number > 0) a number.
absl::StatusOr<uint32_t> ParseWord(std::string_view text, std::span<const Word> words,
                                   uint64_t max_number, std::string_view what) {
  std::vector<std::string_view> names;
  for (const Word& word : words) {
    if (word.name == text) return word.value;
    names.push_back(word.name);
  }
  uint64_t number = 0;
  if (max_number > 0 && ParseNumber(text, max_number, &number))
    return static_cast<uint32_t>(number);
  return base::InvalidArgument("\"{}\" is no {}; did you mean \"{}\"?", text, what,
                               NearestWord(text, names));
}

// "1000", "10k", "2M", "1G": powers of 1,000.
absl::StatusOr<uint64_t> ParseRate(std::string_view text) {
  uint64_t factor = 1;
  if (!text.empty()) {
    const char unit = text.back();
    factor = unit == 'k' || unit == 'K' ? 1'000
             : unit == 'M'              ? 1'000'000
             : unit == 'G'              ? 1'000'000'000
                                        : 1;
  }
  uint64_t value = 0;
  const std::string_view digits = factor > 1 ? text.substr(0, text.size() - 1) : text;
  if (!ParseNumber(digits, kMaxRate / factor, &value) || value == 0) {
    return base::InvalidArgument("\"{}\" is not a rate (1 to {}, with k, M or G for short)", text,
                                 kMaxRate);
  }
  return value * factor;
}

absl::StatusOr<PortRange> ParsePorts(std::string_view text) {
  const size_t dash = text.find('-');
  uint64_t first = 0;
  uint64_t last = 0;
  bool good = ParseNumber(text.substr(0, dash), 65'535, &first);
  last = first;
  if (dash != std::string_view::npos)
    good = good && ParseNumber(text.substr(dash + 1), 65'535, &last);
  if (!good || last < first) {
    return base::InvalidArgument("\"{}\" is not a port or a range of ports (80, 8000-8080)", text);
  }
  return PortRange{static_cast<uint16_t>(first), static_cast<uint16_t>(last)};
}

bool Has(const std::vector<uint8_t>& values, uint8_t value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

// Reads one file; keeps lists by name, so that rules share them.
class Reader {
 public:
  Reader(std::string_view name, const ReadList& read_list) : name_(name), read_list_(read_list) {}

  absl::StatusOr<RuleSet> Read(const ConfigNode& root);

 private:
  absl::Status ReadRule(const ConfigNode& node, size_t number);
  absl::Status ReadMatch(const ConfigNode& node, const std::string& name, Rule* rule);
  void ReadAddresses(ConfigReader& reader, std::string_view key, std::string_view list_key,
                     std::vector<std::shared_ptr<const PrefixSet>>* out);
  absl::StatusOr<std::shared_ptr<const PrefixSet>> List(const std::string& list);
  absl::Status ReadAction(const ConfigNode& node, const std::string& name, Rule* rule);
  absl::Status ReadRate(const ConfigNode& node, const std::string& name, RateLimit* rate);
  absl::Status Account(const std::shared_ptr<const PrefixSet>& set);

  const std::string name_;
  const ReadList& read_list_;
  base::StringMap<std::shared_ptr<const PrefixSet>> lists_;
  std::set<std::string, std::less<>> names_;
  size_t prefixes_ = 0;
  RuleSet out_;
};

absl::Status Reader::Account(const std::shared_ptr<const PrefixSet>& set) {
  prefixes_ += set->size();
  if (prefixes_ <= kMaxPrefixes) return absl::OkStatus();
  return base::InvalidArgument("more than {} prefixes in all rules together", kMaxPrefixes);
}

absl::StatusOr<std::shared_ptr<const PrefixSet>> Reader::List(const std::string& list) {
  if (const auto found = lists_.find(list); found != lists_.end()) return found->second;
  ASSIGN_OR_RETURN(const std::string text, read_list_(list));
  ASSIGN_OR_RETURN(PrefixSet set, ParsePrefixList(text, list));
  auto shared = std::make_shared<const PrefixSet>(std::move(set));
  RETURN_IF_ERROR(Account(shared));
  lists_.emplace(list, shared);
  return shared;
}

void Reader::ReadAddresses(ConfigReader& reader, std::string_view key, std::string_view list_key,
                           std::vector<std::shared_ptr<const PrefixSet>>* out) {
  auto own = std::make_shared<PrefixSet>();
  reader.Texts(key, [&](const std::string& text) { return own->Add(text); });
  if (own->size() > 0) {
    own->Close();
    if (const absl::Status status = Account(own); !status.ok())
      reader.Fail(key, base::Message(status));
    out->push_back(std::move(own));
  }
  reader.Texts(list_key, [&](const std::string& text) {
    ASSIGN_OR_RETURN(auto set, List(text));
    out->push_back(std::move(set));
    return absl::OkStatus();
  });
}

std::string AddressText(std::string_view key, const ConfigNode& node) {
  const ConfigNode* value = node.Find(key);
  if (value == nullptr) return "";
  if (value->kind() == ConfigNode::Kind::kScalar) return fmt::format("{} {}, ", key, value->text());
  if (value->items().size() == 1) return fmt::format("{} {}, ", key, value->items()[0].text());
  if (value->items().size() > 4) return fmt::format("{} ({} items), ", key, value->items().size());
  std::vector<std::string> texts;
  for (const ConfigNode& item : value->items()) texts.push_back(item.text());
  return fmt::format("{} {}, ", key, fmt::join(texts, " "));
}

absl::Status Reader::ReadMatch(const ConfigNode& node, const std::string& name, Rule* rule) {
  RuleMatch& match = rule->match;
  ConfigReader reader(node, name + ".match");
  ReadAddresses(reader, "src", "src_list", &match.source);
  ReadAddresses(reader, "dst", "dst_list", &match.destination);
  reader.Texts("protocol", [&](const std::string& text) {
    ASSIGN_OR_RETURN(const uint32_t protocol, ParseWord(text, kProtocols, 255, "protocol"));
    match.protocols.push_back(static_cast<uint8_t>(protocol));
    return absl::OkStatus();
  });
  const auto read_ports = [&reader](std::string_view key, std::vector<PortRange>* out) {
    reader.Texts(key, [out](const std::string& text) {
      ASSIGN_OR_RETURN(const PortRange range, ParsePorts(text));
      if (out->size() >= kMaxPortRanges) {
        return base::InvalidArgument("more than {} ranges of ports", kMaxPortRanges);
      }
      out->push_back(range);
      return absl::OkStatus();
    });
  };
  read_ports("sport", &match.source_ports);
  read_ports("dport", &match.destination_ports);
  reader.Texts("tcp_flags", [&](const std::string& text) {
    // A list of words, or one text with commas.
    for (size_t begin = 0; begin <= text.size();) {
      const size_t end = std::min(text.find(',', begin), text.size());
      std::string_view word = std::string_view(text).substr(begin, end - begin);
      while (!word.empty() && word.front() == ' ') word.remove_prefix(1);
      while (!word.empty() && word.back() == ' ') word.remove_suffix(1);
      const bool clear = !word.empty() && word.front() == '!';
      ASSIGN_OR_RETURN(const uint32_t flag,
                       ParseWord(clear ? word.substr(1) : word, kFlags, 0, "TCP flag"));
      (clear ? match.flags_clear : match.flags_set) |= static_cast<uint8_t>(flag);
      begin = end + 1;
    }
    if ((match.flags_set & match.flags_clear) != 0) {
      return base::InvalidArgument("\"{}\": a flag cannot be both set and clear", text);
    }
    return absl::OkStatus();
  });
  std::vector<std::string> types;
  reader.Texts("icmp_type", [&](const std::string& text) {
    types.push_back(text);
    return absl::OkStatus();
  });
  const bool icmp = Has(match.protocols, kProtocolIcmp);
  const bool icmpv6 = Has(match.protocols, kProtocolIcmpv6);
  if (!types.empty() && (icmp == icmpv6 || match.protocols.size() != 1)) {
    reader.Fail("icmp_type", "needs protocol: icmp, or protocol: icmpv6");
  } else {
    for (const std::string& text : types) {
      const auto type = icmp ? ParseWord(text, kIcmpTypes, 255, "ICMP type")
                             : ParseWord(text, kIcmpv6Types, 255, "ICMPv6 type");
      if (!type.ok()) {
        reader.Fail("icmp_type", base::Message(type.status()));
        break;
      }
      match.icmp_types.push_back(static_cast<uint8_t>(*type));
    }
  }
  reader.Texts("fragment", [&](const std::string& text) {
    std::string_view word = text;
    if (text == "true") word = "any";
    if (text == "false") word = "none";
    ASSIGN_OR_RETURN(const uint32_t bits, ParseWord(word, kFragments, 0, "kind of fragment"));
    match.fragments |= static_cast<uint8_t>(bits);
    return absl::OkStatus();
  });
  constexpr std::array<std::string_view, 2> kFamilies = {"ipv4", "ipv6"};
  std::string family;
  reader.OneOf("family", kFamilies, &family);
  if (!family.empty()) match.family = family == "ipv4" ? FW_FAMILY_IPV4 : FW_FAMILY_IPV6;

  const bool wants_ports = !match.source_ports.empty() || !match.destination_ports.empty();
  for (const uint8_t protocol : match.protocols) {
    const bool has_ports = protocol == kProtocolTcp || protocol == kProtocolUdp ||
                           protocol == kProtocolDccp || protocol == kProtocolSctp ||
                           protocol == kProtocolUdpLite;
    if (wants_ports && !has_ports) {
      reader.Fail(match.source_ports.empty() ? "dport" : "sport",
                  fmt::format("protocol {} has no ports", protocol));
    }
    if ((match.flags_set | match.flags_clear) != 0 && protocol != kProtocolTcp) {
      reader.Fail("tcp_flags", fmt::format("protocol {} is not TCP", protocol));
    }
  }
  RETURN_IF_ERROR(reader.Finish());
  for (const std::string_view key : {"src", "src_list", "dst", "dst_list", "protocol", "sport",
                                     "dport", "tcp_flags", "icmp_type", "fragment", "family"}) {
    rule->match_text += AddressText(key, node);
  }
  if (!rule->match_text.empty()) rule->match_text.resize(rule->match_text.size() - 2);
  return absl::OkStatus();
}

absl::Status Reader::ReadRate(const ConfigNode& node, const std::string& name, RateLimit* rate) {
  ConfigReader reader(node, name + ".rate");
  const auto read_rate = [&reader](std::string_view key, uint64_t* out) {
    reader.Node(key, [out](const ConfigNode& value) {
      ASSIGN_OR_RETURN(*out, ParseRate(value.text()));
      return absl::OkStatus();
    });
  };
  read_rate("pps", &rate->packets_per_s);
  read_rate("bps", &rate->bits_per_s);
  if (rate->packets_per_s == 0 && rate->bits_per_s == 0)
    reader.Fail("pps", "a rate needs pps or bps");
  uint64_t burst = 0;
  reader.Integer("burst", 1, kMaxBurstPackets, &burst);
  reader.Bytes("burst_bytes", kMinBurstBytes, kMaxBurstBytes, &rate->burst_bytes);
  if (rate->packets_per_s > 0) {
    // A tenth of a second's worth.
    rate->burst_packets =
        burst > 0 ? burst : std::clamp<uint64_t>(rate->packets_per_s / 10, 1, kMaxBurstPackets);
  } else if (burst > 0) {
    if (burst < kMinBurstBytes) {
      reader.Fail("burst", fmt::format("without pps it is in bytes, at least {}", kMinBurstBytes));
    }
    rate->burst_bytes = burst;
  }
  if (rate->bits_per_s > 0 && rate->burst_bytes == 0) {
    rate->burst_bytes = std::clamp<uint64_t>(rate->bits_per_s / 80, 65'536, kMaxBurstBytes);
  }
  if (rate->bits_per_s == 0) rate->burst_bytes = 0;
  constexpr std::array<std::string_view, 3> kPer = {"rule", "source", "source/24"};
  std::string per = "rule";
  reader.OneOf("per", kPer, &per);
  rate->per = per == "rule" ? FW_PER_RULE : per == "source" ? FW_PER_SOURCE : FW_PER_SOURCE_24;
  return reader.Finish();
}

// "drop", "pass", "count", "sample 1/100", {sample: 1/100}, {rate: {…}}.
absl::Status Reader::ReadAction(const ConfigNode& node, const std::string& name, Rule* rule) {
  const auto sample = [rule](std::string_view text) -> absl::Status {
    uint64_t n = 0;
    if (!text.starts_with("1/") || !ParseNumber(text.substr(2), 1'000'000'000, &n) || n == 0) {
      return base::InvalidArgument("\"{}\" is not a share of packets (1/N)", text);
    }
    rule->action = FW_ACTION_SAMPLE;
    rule->sample_n = static_cast<uint32_t>(n);
    rule->action_text = fmt::format("sample 1/{}", n);
    return absl::OkStatus();
  };
  if (node.kind() == ConfigNode::Kind::kScalar) {
    constexpr Word kActions[] = {
        {"drop", FW_ACTION_DROP}, {"pass", FW_ACTION_PASS}, {"count", FW_ACTION_COUNT}};
    const std::string& text = node.text();
    if (text.starts_with("sample ")) return sample(std::string_view(text).substr(7));
    if (text == "rate") return base::InvalidArgument("a rate is written {{rate: {{pps: 1000}}}}");
    ASSIGN_OR_RETURN(const uint32_t action, ParseWord(text, kActions, 0, "action"));
    rule->action = static_cast<fw_action>(action);
    rule->action_text = text;
    return absl::OkStatus();
  }
  ConfigReader reader(node, name + ".action");
  int given = 0;
  reader.Texts("sample", [&](const std::string& text) {
    ++given;
    return sample(text);
  });
  reader.Node("rate", [&](const ConfigNode& value) {
    ++given;
    rule->action = FW_ACTION_RATE;
    RETURN_IF_ERROR(ReadRate(value, name + ".action", &rule->rate));
    const RateLimit& rate = rule->rate;
    rule->action_text = "rate";
    if (rate.packets_per_s > 0) {
      rule->action_text +=
          fmt::format(" {} pps (burst {})", rate.packets_per_s, rate.burst_packets);
    }
    if (rate.bits_per_s > 0) {
      rule->action_text +=
          fmt::format(" {} bps (burst {} bytes)", rate.bits_per_s, rate.burst_bytes);
    }
    constexpr std::string_view kPer[] = {"rule", "source", "source/24"};
    rule->action_text += fmt::format(" per {}", kPer[rate.per]);
    return absl::OkStatus();
  });
  RETURN_IF_ERROR(reader.Finish());
  if (given == 1) return absl::OkStatus();
  return base::InvalidArgument("{}.action is drop, pass, count, sample 1/N or {{rate: …}}", name);
}

absl::Status Reader::ReadRule(const ConfigNode& node, size_t number) {
  Rule rule;
  std::string name = fmt::format("rules[{}]", number);
  if (const ConfigNode* given = node.Find("name"); given != nullptr && !given->text().empty()) {
    name = given->text();
  }
  ConfigReader reader(node, name);
  reader.Text("name", &rule.name);
  if (rule.name.empty()) reader.Fail("name", "a rule needs a name: its counters belong to it");
  if (rule.name.size() > 63) reader.Fail("name", "at most 63 characters");
  if (rule.name.find_first_of("\n\r\t") != std::string::npos) reader.Fail("name", "one line");
  reader.Text("comment", &rule.comment);
  if (rule.comment.size() > 1024) reader.Fail("comment", "at most 1,024 characters");
  reader.Integer("priority", 0u, 1'000'000u, &rule.priority);
  reader.Duration("ttl", 1'000, kMaxTtlMs, &rule.ttl_ms);
  reader.Node("match", [&](const ConfigNode& value) { return ReadMatch(value, name, &rule); });
  bool has_action = false;
  reader.Node("action", [&](const ConfigNode& value) {
    has_action = true;
    return ReadAction(value, name, &rule);
  });
  RETURN_IF_ERROR(reader.Finish());
  if (!has_action) return base::InvalidArgument("{}: {} has no action", node.Place(), name);
  if (!names_.insert(rule.name).second) {
    return base::InvalidArgument("{}: two rules have the name \"{}\"", node.Place(), rule.name);
  }
  out_.rules.push_back(std::move(rule));
  return absl::OkStatus();
}

absl::StatusOr<RuleSet> Reader::Read(const ConfigNode& root) {
  ConfigReader reader(root, "rules file");
  bool has_rules = false;
  constexpr std::array<std::string_view, 2> kMalformed = {"pass", "drop"};
  std::string malformed = "pass";
  reader.OneOf("malformed", kMalformed, &malformed);
  reader.Node("rules", [&](const ConfigNode& node) -> absl::Status {
    has_rules = true;
    if (node.kind() != ConfigNode::Kind::kList) return base::InvalidArgument("rules is a list");
    for (const ConfigNode& item : node.items()) {
      if (item.kind() != ConfigNode::Kind::kMap) {
        return base::InvalidArgument("{}: a rule is a map: name, match, action, …", item.Place());
      }
      if (out_.rules.size() == FW_RULES_MAX) {
        return base::InvalidArgument("{}: more than {} rules", item.Place(), FW_RULES_MAX);
      }
      RETURN_IF_ERROR(ReadRule(item, out_.rules.size()));
    }
    return absl::OkStatus();
  });
  RETURN_IF_ERROR(reader.Finish());
  if (!has_rules) return base::InvalidArgument("{}: there is no \"rules\"", name_);
  out_.drop_malformed = malformed == "drop";
  // By priority, equal ones as in the file.
  std::multimap<uint32_t, Rule> ordered;
  for (Rule& rule : out_.rules) {
    const uint32_t priority = rule.priority;
    ordered.emplace(priority, std::move(rule));
  }
  out_.rules.clear();
  for (auto& [priority, rule] : ordered) out_.rules.push_back(std::move(rule));
  return std::move(out_);
}

}  // namespace

absl::StatusOr<RuleSet> ParseRules(std::string_view yaml, std::string_view name,
                                   const ReadList& read_list) {
  ASSIGN_OR_RETURN(const ConfigNode root, ParseConfigText(yaml, name, kLimits));
  if (root.present() && root.kind() != ConfigNode::Kind::kMap) {
    return base::InvalidArgument("{}: the file is a map with the key \"rules\"", root.Place());
  }
  return Reader(name, read_list).Read(root);
}

absl::StatusOr<std::vector<std::string>> ListsOfRules(std::string_view yaml,
                                                      std::string_view name) {
  ASSIGN_OR_RETURN(const ConfigNode root, ParseConfigText(yaml, name, kLimits));
  std::set<std::string> lists;
  const ConfigNode* rules = root.Find("rules");
  if (rules == nullptr) return std::vector<std::string>();
  for (const ConfigNode& rule : rules->items()) {
    const ConfigNode* match = rule.Find("match");
    if (match == nullptr) continue;
    for (const std::string_view key : {"src_list", "dst_list"}) {
      const ConfigNode* value = match->Find(key);
      if (value == nullptr) continue;
      if (!value->text().empty()) lists.insert(value->text());
      for (const ConfigNode& item : value->items()) lists.insert(item.text());
    }
  }
  return std::vector<std::string>(lists.begin(), lists.end());
}

}  // namespace firewatch::agent
