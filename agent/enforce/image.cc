// SPDX-License-Identifier: Apache-2.0
#include "agent/enforce/image.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <map>
#include <utility>

#include "agent/enforce/address_runs.h"
#include "agent/enforce/address_table.h"
#include "agent/enforce/image_writer.h"
#include "base/check.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

using Sets = std::vector<std::shared_ptr<const PrefixSet>>;

// The distinct sets of one direction, with the rules that use each.
struct SetUsers {
  std::vector<const PrefixSet*> sets;
  std::vector<RuleMask> masks;
  RuleMask none{};  // rules that take any address
};

SetUsers CollectSets(const RuleSet& rules, const Sets RuleMatch::* direction) {
  SetUsers out;
  std::map<const PrefixSet*, size_t> numbers;
  for (size_t r = 0; r < rules.rules.size(); ++r) {
    const Sets& sets = rules.rules[r].match.*direction;
    if (sets.empty()) SetBit(&out.none, r);
    for (const auto& set : sets) {
      const auto [found, added] = numbers.try_emplace(set.get(), out.sets.size());
      if (added) {
        out.sets.push_back(set.get());
        out.masks.emplace_back();
      }
      SetBit(&out.masks[found->second], r);
    }
  }
  return out;
}

class Builder {
 public:
  Builder(const RuleSet& rules, const ImageOptions& options) : rules_(rules), options_(options) {}
  absl::StatusOr<Image> Build();

 private:
  absl::Status CheckSize() const {
    if (writer_.bytes() <= options_.max_bytes) return absl::OkStatus();
    return base::ResourceExhausted("the rules need more than {} MiB of kernel memory",
                                   options_.max_bytes >> 20);
  }
  // Room for the pages of IPv4: they are in slab 0, whatever comes before a table.
  void ReservePages(const Sets RuleMatch::* direction, fw_addresses* out);
  absl::Status WriteAddresses(const Sets RuleMatch::* direction, uint32_t field, uint32_t decides,
                              fw_addresses* out);
  void WriteRules();
  void WriteSmallFields();
  void WritePorts(const std::vector<PortRange> RuleMatch::* direction, uint32_t field,
                  fw_ports* out);
  void WriteVectors();
  // The entry for a vector of a direction: its number, or the rule that decides at once.
  uint32_t EntryOf(uint32_t vector, const Sets RuleMatch::* direction) const;
  template <typename Address>
  void MakeEntries(const Sets RuleMatch::* direction, std::vector<Run<Address>>* runs) const;
  // The vector of the rules for which `allows` is true.
  uint32_t VectorOf(const std::function<bool(const RuleMatch&)>& allows);
  bool AnyRule(const std::function<bool(const RuleMatch&)>& asks) const {
    return std::any_of(rules_.rules.begin(), rules_.rules.end(),
                       [&](const Rule& rule) { return asks(rule.match); });
  }

  const RuleSet& rules_;
  const ImageOptions& options_;
  ImageWriter writer_;
  Vectors vectors_;
  fw_image header_{};
};

uint32_t Builder::VectorOf(const std::function<bool(const RuleMatch&)>& allows) {
  RuleMask mask{};
  for (size_t r = 0; r < rules_.rules.size(); ++r) {
    if (allows(rules_.rules[r].match)) SetBit(&mask, r);
  }
  return vectors_.Intern(mask);
}

// Whether `match` asks for nothing but an address of `direction`, or for nothing.
bool AsksOnlyFor(const RuleMatch& match, const Sets RuleMatch::* direction) {
  const Sets& other = direction == &RuleMatch::source ? match.destination : match.source;
  return other.empty() && match.protocols.empty() && match.source_ports.empty() &&
         match.destination_ports.empty() && match.flags_set == 0 && match.flags_clear == 0 &&
         match.icmp_types.empty() && match.fragments == 0 && !match.family;
}

uint32_t Builder::EntryOf(uint32_t vector, const Sets RuleMatch::* direction) const {
  const RuleMask& mask = vectors_.mask(vector);
  for (size_t word = 0; word < mask.size(); ++word) {
    if (mask[word] == 0) continue;
    const size_t first = word * 64 + static_cast<size_t>(std::countr_zero(mask[word]));
    const Rule& rule = rules_.rules[first];
    if (rule.action < FW_ACTION_COUNT && rule.ttl_ms == 0 && AsksOnlyFor(rule.match, direction)) {
      return FW_ENTRY_RULE | static_cast<uint32_t>(first);
    }
    break;
  }
  return vector;
}

template <typename Address>
void Builder::MakeEntries(const Sets RuleMatch::* direction,
                          std::vector<Run<Address>>* runs) const {
  for (Run<Address>& run : *runs) run.vector = EntryOf(run.vector, direction);
  // Different sets may have one rule that decides.
  runs->erase(std::unique(runs->begin(), runs->end(),
                          [](const auto& a, const auto& b) { return a.vector == b.vector; }),
              runs->end());
}

void Builder::ReservePages(const Sets RuleMatch::* direction, fw_addresses* out) {
  if (!AnyRule([&](const RuleMatch& match) { return !(match.*direction).empty(); })) return;
  out->pages = writer_.Append(std::vector<fw_page>(FW_PAGE_COUNT), sizeof(fw_page));
  CHECK(writer_.bytes() <= FW_IMAGE_SLAB_BYTES);
}

absl::Status Builder::WriteAddresses(const Sets RuleMatch::* direction, uint32_t field,
                                     uint32_t decides, fw_addresses* out) {
  const SetUsers users = CollectSets(rules_, direction);
  if (users.none == RuleMask{}) header_.flags |= decides;
  out->none = EntryOf(vectors_.Intern(users.none), direction);
  if (users.sets.empty()) return absl::OkStatus();  // nobody looks
  header_.fields |= field;
  std::vector<OwnedPrefix<Prefix4>> prefixes4;
  std::vector<OwnedPrefix<Prefix6>> prefixes6;
  for (uint32_t i = 0; i < users.sets.size(); ++i) {
    for (const Prefix4& prefix : users.sets[i]->prefixes4()) prefixes4.push_back({prefix, i});
    for (const Prefix6& prefix : users.sets[i]->prefixes6()) prefixes6.push_back({prefix, i});
  }
  auto runs4 = MakeRuns<uint32_t>(std::move(prefixes4), users.masks, users.none, &vectors_);
  MakeEntries(direction, &runs4);
  WriteTable4(runs4, &writer_, out);
  RETURN_IF_ERROR(CheckSize());
  auto runs6 = MakeRuns<Address6>(std::move(prefixes6), users.masks, users.none, &vectors_);
  MakeEntries(direction, &runs6);
  WriteTable6(runs6, &writer_, out);
  return CheckSize();
}

void Builder::WriteRules() {
  auto* rules = writer_.At<fw_rule>(FW_IMAGE_RULES);
  for (size_t r = 0; r < rules_.rules.size(); ++r) {
    const Rule& rule = rules_.rules[r];
    fw_rule& out = rules[r];
    out.action = static_cast<fw_u8>(rule.action);
    out.per = static_cast<fw_u8>(rule.rate.per);
    out.slot = options_.slots[r];
    out.parameter = rule.action == FW_ACTION_SAMPLE ? rule.sample_n
                    : rule.action == FW_ACTION_RATE ? options_.bucket_keys[r]
                                                    : 0;
    if (rule.ttl_ms > 0) {
      out.deadline_ns = options_.now_ns + rule.ttl_ms * 1'000'000;
      header_.flags |= FW_IMAGE_EXPIRES;
    }
    const auto fill_ns = [](uint64_t depth, uint64_t rate) { return depth / rate + 1; };
    if (rule.rate.packets_per_s > 0) {
      out.packets_per_s = rule.rate.packets_per_s;
      out.packet_depth = rule.rate.burst_packets * FW_TOKENS_EACH;
      out.packet_fill_ns = fill_ns(out.packet_depth, out.packets_per_s);
    }
    if (rule.rate.bits_per_s > 0) {
      out.bits_per_s = rule.rate.bits_per_s;
      out.bit_depth = rule.rate.burst_bytes * 8 * FW_TOKENS_EACH;
      out.bit_fill_ns = fill_ns(out.bit_depth, out.bits_per_s);
    }
  }
}

void Builder::WriteSmallFields() {
  const auto asks_protocol = [](const RuleMatch& match) { return !match.protocols.empty(); };
  const auto asks_detail = [](const RuleMatch& match) {
    return (match.flags_set | match.flags_clear) != 0 || !match.icmp_types.empty();
  };
  if (AnyRule(asks_protocol)) header_.fields |= FW_FIELD_PROTOCOL;
  if (AnyRule(asks_detail)) header_.fields |= FW_FIELD_DETAIL;
  if (AnyRule([](const RuleMatch& match) { return match.fragments != 0 || match.family; })) {
    header_.fields |= FW_FIELD_FRAGMENT;
  }
  auto* protocols = writer_.At<uint32_t>(FW_IMAGE_PROTOCOLS);
  for (uint32_t p = 0; p < FW_PROTOCOL_COUNT; ++p) {
    protocols[p] = VectorOf([&](const RuleMatch& match) {
      return match.protocols.empty() ||
             std::find(match.protocols.begin(), match.protocols.end(), p) != match.protocols.end();
    });
  }
  auto* details = writer_.At<uint32_t>(FW_IMAGE_DETAILS);
  for (uint32_t d = 0; d < FW_DETAIL_COUNT; ++d) {
    details[d] = VectorOf([&](const RuleMatch& match) {
      if (!asks_detail(match)) return true;
      if (!match.icmp_types.empty()) {
        if (d < FW_DETAIL_ICMP || d >= FW_DETAIL_NONE) return false;
        return std::find(match.icmp_types.begin(), match.icmp_types.end(), d % 256) !=
               match.icmp_types.end();
      }
      return d < FW_DETAIL_ICMP && (d & match.flags_set) == match.flags_set &&
             (d & match.flags_clear) == 0;
    });
  }
  for (uint32_t family = 0; family < 2; ++family) {
    for (uint32_t fragment = 0; fragment < 3; ++fragment) {
      header_.fragment[family][fragment] = VectorOf([&](const RuleMatch& match) {
        return (!match.family || *match.family == family) &&
               (match.fragments == 0 || (match.fragments >> fragment & 1) != 0);
      });
    }
    header_.fragment[family][3] = vectors_.Intern({});
  }
}

void Builder::WritePorts(const std::vector<PortRange> RuleMatch::* direction, uint32_t field,
                         fw_ports* out) {
  if (AnyRule([&](const RuleMatch& match) { return !(match.*direction).empty(); })) {
    header_.fields |= field;
  } else {
    return;
  }
  out->none = VectorOf([&](const RuleMatch& match) { return (match.*direction).empty(); });
  // Where vectors may change.
  std::vector<uint32_t> starts = {0};
  for (const Rule& rule : rules_.rules) {
    for (const PortRange& range : rule.match.*direction) {
      starts.push_back(range.first);
      starts.push_back(range.last + 1u);
    }
  }
  std::sort(starts.begin(), starts.end());
  starts.erase(std::unique(starts.begin(), starts.end()), starts.end());
  std::vector<uint32_t> by_port(65'536);
  for (size_t i = 0; i < starts.size() && starts[i] < 65'536; ++i) {
    const uint32_t port = starts[i];
    const uint32_t vector = VectorOf([&](const RuleMatch& match) {
      const auto& ranges = match.*direction;
      return ranges.empty() ||
             std::any_of(ranges.begin(), ranges.end(), [port](const PortRange& range) {
               return range.first <= port && port <= range.last;
             });
    });
    const uint32_t end = i + 1 < starts.size() ? starts[i + 1] : 65'536;
    std::fill(by_port.begin() + port, by_port.begin() + std::min(end, 65'536u), vector);
  }
  std::map<std::vector<uint32_t>, uint16_t> numbers;
  std::vector<uint16_t> pages;
  std::vector<uint32_t> vectors;
  for (size_t page = 0; page < 256; ++page) {
    std::vector<uint32_t> one(by_port.begin() + static_cast<ptrdiff_t>(page * 256),
                              by_port.begin() + static_cast<ptrdiff_t>(page * 256 + 256));
    const auto [found, added] =
        numbers.try_emplace(one, static_cast<uint16_t>(vectors.size() / 256));
    if (added) vectors.insert(vectors.end(), one.begin(), one.end());
    pages.push_back(found->second);
  }
  out->pages = writer_.Append(pages);
  out->vectors = writer_.Append(vectors);
}

void Builder::WriteVectors() {
  const size_t count = rules_.rules.size();
  header_.word_shift = count <= 64 ? 0 : count <= 128 ? 1 : 2;
  const size_t words = size_t{1} << header_.word_shift;
  std::vector<uint64_t> out;
  out.reserve(vectors_.masks().size() * words);
  for (const RuleMask& mask : vectors_.masks()) {
    out.insert(out.end(), mask.begin(), mask.begin() + static_cast<ptrdiff_t>(words));
  }
  header_.vector_count = static_cast<uint32_t>(vectors_.masks().size());
  header_.vectors = writer_.Append(out, FW_RULE_WORDS_MAX * 8);
}

absl::StatusOr<Image> Builder::Build() {
  const size_t count = rules_.rules.size();
  CHECK(count <= FW_RULES_MAX && options_.slots.size() == count &&
        options_.bucket_keys.size() == count);
  header_.layout = FW_IMAGE_LAYOUT;
  header_.generation = options_.generation;
  header_.confirm_deadline_ns = options_.confirm_deadline_ns;
  header_.bucket_seed = options_.bucket_seed;
  header_.rule_count = static_cast<uint32_t>(count);
  if (options_.dry_run) header_.flags |= FW_IMAGE_DRY_RUN;
  if (rules_.drop_malformed) header_.flags |= FW_IMAGE_DROP_MALFORMED;
  RuleMask all{};
  for (size_t r = 0; r < count; ++r) SetBit(&all, r);
  std::copy(all.begin(), all.end(), header_.all);

  WriteRules();
  WriteSmallFields();
  ReservePages(&RuleMatch::source, &header_.source);
  ReservePages(&RuleMatch::destination, &header_.destination);
  RETURN_IF_ERROR(WriteAddresses(&RuleMatch::source, FW_FIELD_SOURCE, FW_IMAGE_SOURCE_DECIDES,
                                 &header_.source));
  RETURN_IF_ERROR(WriteAddresses(&RuleMatch::destination, FW_FIELD_DESTINATION,
                                 FW_IMAGE_DESTINATION_DECIDES, &header_.destination));
  WritePorts(&RuleMatch::source_ports, FW_FIELD_SOURCE_PORT, &header_.source_ports);
  WritePorts(&RuleMatch::destination_ports, FW_FIELD_DESTINATION_PORT, &header_.destination_ports);
  WriteVectors();
  header_.metadata_bytes = static_cast<uint32_t>(options_.metadata.size());
  header_.metadata =
      writer_.Append(std::span<const char>(options_.metadata.data(), options_.metadata.size()));
  RETURN_IF_ERROR(CheckSize());
  Image image;
  const size_t slabs = (writer_.bytes() + FW_IMAGE_SLAB_BYTES - 1) / FW_IMAGE_SLAB_BYTES;
  header_.slab_count = static_cast<uint32_t>(slabs);
  *writer_.At<fw_image>(0) = header_;
  image.used_bytes = writer_.bytes();
  image.words = writer_.Take();
  return image;
}

}  // namespace

absl::StatusOr<Image> BuildImage(const RuleSet& rules, const ImageOptions& options) {
  return Builder(rules, options).Build();
}

}  // namespace firewatch::agent
