// SPDX-License-Identifier: Apache-2.0
#include "agent/enforce/firewall.h"

#include <fmt/format.h>
#include <net/if.h>
#include <spdlog/spdlog.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <bitset>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/check.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

using Json = nlohmann::json;

std::string MetadataText(const std::vector<LoadedRule>& rules, const std::string& source) {
  Json out = {{"source", source}, {"rules", Json::array()}};
  for (const LoadedRule& rule : rules) {
    out["rules"].push_back({{"name", rule.name},
                            {"comment", rule.comment},
                            {"match", rule.match},
                            {"action", rule.action},
                            {"priority", rule.priority},
                            {"slot", rule.slot},
                            {"bucket_key", rule.bucket_key},
                            {"prefixes", rule.prefixes}});
  }
  // Names are the user's bytes.
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::StatusOr<std::vector<LoadedRule>> ParseMetadata(const ImageMap& image, std::string* source) {
  const Json json = Json::parse(image.metadata(), nullptr, /*allow_exceptions=*/false);
  std::vector<LoadedRule> out;
  try {
    *source = json.at("source").get<std::string>();
    for (const Json& rule : json.at("rules")) {
      LoadedRule one{.name = rule.at("name"),
                     .comment = rule.at("comment"),
                     .match = rule.at("match"),
                     .action = rule.at("action"),
                     .priority = rule.at("priority"),
                     .slot = rule.at("slot"),
                     .bucket_key = rule.at("bucket_key"),
                     .prefixes = rule.at("prefixes")};
      if (one.slot >= FW_RULE_SLOTS) return base::DataLoss("the rules in force are damaged");
      one.deadline_ns = image.rule(out.size()).deadline_ns;
      out.push_back(std::move(one));
    }
  } catch (const Json::exception& error) {
    return base::DataLoss("the rules in force are damaged: {}", error.what());
  }
  if (out.size() != image.header().rule_count) return base::DataLoss("rules in force are missing");
  return out;
}

uint64_t RandomSeed() {
  uint64_t seed = 0;
  CHECK(::getrandom(&seed, sizeof(seed), 0) == sizeof(seed));
  return seed;
}

uint64_t CountPrefixes(const RuleMatch& match) {
  uint64_t sum = 0;
  for (const auto& set : match.source) sum += set->size();
  for (const auto& set : match.destination) sum += set->size();
  return sum;
}

}  // namespace

Firewall::~Firewall() = default;

absl::StatusOr<std::unique_ptr<Firewall>> Firewall::TakeOver(const std::string& interface,
                                                             const std::string& directory,
                                                             const base::Clock& clock) {
  std::unique_ptr<Firewall> out(new Firewall(interface, directory, clock));
  out->ifindex_ = ::if_nametoindex(interface.c_str());
  const bool is_gone = out->ifindex_ == 0;
  if (!is_gone && !IsAttached(out->ifindex_, directory)) {
    DetachAndUnpin(out->ifindex_, directory);
    return base::NotFound("{}: what was in force is not attached any more", interface);
  }
  ASSIGN_OR_RETURN(out->program_, FirewallProgram::Load(directory));
  auto current = out->program_->Find(0);
  if (!current.ok()) return current.status();
  out->current_ = *std::move(current);
  if (auto previous = out->program_->Find(1); previous.ok()) {
    out->previous_ = *std::move(previous);
  }
  RETURN_IF_ERROR(out->ReadRules());
  if (is_gone) return out;
  ASSIGN_OR_RETURN(out->attachment_,
                   firewatch::agent::TakeOver(*out->program_, out->ifindex_, directory));
  out->wanted_mode_ = out->attachment_.mode;
  return out;
}

absl::StatusOr<std::unique_ptr<Firewall>> Firewall::Start(const std::string& interface,
                                                          const std::string& directory,
                                                          const RuleSet& rules,
                                                          const LoadOptions& options,
                                                          const base::Clock& clock) {
  std::unique_ptr<Firewall> out(new Firewall(interface, directory, clock));
  out->ifindex_ = ::if_nametoindex(interface.c_str());
  if (out->ifindex_ == 0) return base::NotFound("there is no interface \"{}\"", interface);
  RETURN_IF_ERROR(out->CheckLoad(options));
  out->wanted_mode_ = options.mode;
  // What another version left is in force until here.
  DetachAndUnpin(out->ifindex_, directory);
  RETURN_IF_ERROR(MakePinDirectory(directory));
  const auto start = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(out->program_, FirewallProgram::Load(directory));
    RETURN_IF_ERROR(out->Load(rules, options));
    ASSIGN_OR_RETURN(out->attachment_, AttachProgram(*out->program_, out->ifindex_, directory,
                                                     options.mode, options.replace));
    return absl::OkStatus();
  };
  if (const absl::Status status = start(); !status.ok()) {
    DetachAndUnpin(out->ifindex_, directory);
    return base::Annotate(status, interface);
  }
  return out;
}

absl::Status Firewall::CheckLoad(const LoadOptions& options) const {
  if (!options.allow_default_route && options.confirm_within_ms == 0 &&
      CarriesDefaultRoute(interface_)) {
    return base::FailedPrecondition(
        "{} carries the default route: a wrong rule may lock you out. Give --confirm-within 60s, "
        "or --allow-default-route",
        interface_);
  }
  if (options.dry_run && current_ && (current_->header().flags & FW_IMAGE_DRY_RUN) == 0) {
    return base::FailedPrecondition(
        "{} has rules in force, which a dry run would switch off: unload them first", interface_);
  }
  return absl::OkStatus();
}

absl::Status Firewall::Load(const RuleSet& rules, const LoadOptions& options) {
  RETURN_IF_ERROR(CheckLoad(options));
  Tick();
  ImageOptions image_options;
  image_options.generation = current_ ? current_->header().generation + 1 : 1;
  image_options.now_ns = clock_.MonotonicNs();
  image_options.bucket_seed = current_ ? current_->header().bucket_seed : RandomSeed();
  image_options.dry_run = options.dry_run;
  image_options.max_bytes = options.max_image_bytes;
  if (options.confirm_within_ms > 0) {
    image_options.confirm_deadline_ns =
        image_options.now_ns + options.confirm_within_ms * 1'000'000;
  }

  // Counters go with names; those of names that are gone are free. A generation that may come back
  // keeps its own.
  std::map<std::string, const LoadedRule*> known;
  std::bitset<FW_RULE_SLOTS> taken;
  for (const LoadedRule& rule : rules_) {
    known.emplace(rule.name, &rule);
    taken.set(rule.slot);
  }
  std::vector<LoadedRule> before;
  if (previous_) {
    std::string ignored;
    ASSIGN_OR_RETURN(before, ParseMetadata(*previous_, &ignored));
    for (const LoadedRule& rule : before) {
      known.emplace(rule.name, &rule);
      taken.set(rule.slot);
    }
  }
  std::vector<LoadedRule> loaded;
  for (const Rule& rule : rules.rules) {
    LoadedRule one{.name = rule.name,
                   .comment = rule.comment,
                   .match = rule.match_text,
                   .action = rule.action_text,
                   .priority = rule.priority,
                   .prefixes = CountPrefixes(rule.match)};
    if (const auto found = known.find(rule.name); found != known.end()) {
      one.slot = found->second->slot;
      one.bucket_key = found->second->bucket_key;
    } else {
      ASSIGN_OR_RETURN(one.slot, FreeSlot(taken));
      taken.set(one.slot);
      // Another rule's buckets of the same slot have another key.
      one.bucket_key = static_cast<uint32_t>(image_options.generation << 9 | one.slot) | 1u << 31;
    }
    image_options.slots.push_back(one.slot);
    image_options.bucket_keys.push_back(one.bucket_key);
    loaded.push_back(std::move(one));
  }
  image_options.metadata = MetadataText(loaded, options.source);
  ASSIGN_OR_RETURN(const Image image, BuildImage(rules, image_options));
  ASSIGN_OR_RETURN(ImageMap map, ImageMap::Create(image));

  if (options.confirm_within_ms > 0) {
    // What comes back must be there before the deadline can pass. A generation that itself was
    // never confirmed does not come back: the one before it does.
    const bool confirmed = current_ && current_->header().confirm_deadline_ns == 0;
    if (confirmed) RETURN_IF_ERROR(program_->Put(1, &*current_));
    RETURN_IF_ERROR(program_->Put(0, &map));
    if (confirmed) previous_ = std::move(current_);
  } else {
    ASSIGN_OR_RETURN(const uint64_t swap, program_->PutSoon(&map));
    RETURN_IF_ERROR(program_->Remove(1));
    previous_.reset();
    for (const LoadedRule& rule : rules_) freed_by_[rule.slot] = swap;
    for (const LoadedRule& rule : before) freed_by_[rule.slot] = swap;
  }
  current_ = std::move(map);
  return ReadRules();
}

absl::StatusOr<uint16_t> Firewall::FreeSlot(const std::bitset<FW_RULE_SLOTS>& taken) {
  const auto find = [&]() -> std::optional<uint16_t> {
    const uint64_t done = program_->SwapsDone();
    for (uint16_t slot = 0; slot < FW_RULE_SLOTS; ++slot) {
      if (!taken.test(slot) && freed_by_[slot] <= done) return slot;
    }
    return std::nullopt;
  };
  std::optional<uint16_t> slot = find();
  if (!slot && !taken.all()) {
    program_->WaitForSwaps();
    slot = find();
  }
  if (!slot) {
    return base::ResourceExhausted(
        "no counters are left: confirm the rules in force before loading others");
  }
  RETURN_IF_ERROR(program_->ClearRuleCounts(*slot));
  return *slot;
}

absl::Status Firewall::ReadRules() {
  ASSIGN_OR_RETURN(rules_, ParseMetadata(*current_, &source_));
  return absl::OkStatus();
}

absl::Status Firewall::Confirm() {
  const uint64_t deadline_ns = current_->header().confirm_deadline_ns;
  if (deadline_ns == 0) return base::FailedPrecondition("{}: nothing waits for it", interface_);
  if (clock_.MonotonicNs() >= deadline_ns) {
    return base::FailedPrecondition("{}: too late, the rules before are back", interface_);
  }
  current_->ClearDeadline();
  RETURN_IF_ERROR(program_->Remove(1));
  previous_.reset();
  return absl::OkStatus();
}

void Firewall::Unload() {
  DetachAndUnpin(ifindex_, directory_);
  current_.reset();
  previous_.reset();
  rules_.clear();
}

absl::StatusOr<bool> Firewall::Reattach() {
  const uint32_t ifindex = ::if_nametoindex(interface_.c_str());
  if (!current_ || ifindex == 0 || ifindex == ifindex_) return false;
  ifindex_ = ifindex;
  ForgetAttachment(directory_);
  auto attached = AttachProgram(*program_, ifindex, directory_, wanted_mode_, /*replace=*/false);
  attach_error_ = attached.ok() ? "" : base::Message(attached.status());
  if (!attached.ok()) return base::Annotate(attached.status(), interface_);
  attachment_ = *std::move(attached);
  return true;
}

bool Firewall::Tick() {
  if (!current_) return true;
  const uint64_t deadline_ns = current_->header().confirm_deadline_ns;
  if (deadline_ns == 0 || clock_.MonotonicNs() < deadline_ns) return true;
  if (!previous_) {
    spdlog::warn("{}: the rules were not confirmed in time, and there were none before: unloaded",
                 interface_);
    Unload();
    return false;
  }
  spdlog::warn("{}: the rules were not confirmed in time: generation {} is back", interface_,
               previous_->header().generation);
  // The program judges by it already; this makes it the one in force.
  absl::Status status = program_->Put(0, &*previous_);
  if (status.ok()) status = program_->Remove(1);
  if (!status.ok()) {
    spdlog::error("{}: {}", interface_, base::Message(status));
    return true;
  }
  current_ = std::move(previous_);
  previous_.reset();
  if (const absl::Status read = ReadRules(); !read.ok()) {
    spdlog::error("{}: {}", interface_, base::Message(read));
  }
  return true;
}

std::string Firewall::RuleName(uint64_t generation, uint32_t index) const {
  if (!current_ || current_->header().generation != generation) return "";
  return index < rules_.size() ? rules_[index].name : "";
}

FirewallState Firewall::State() const {
  FirewallState out;
  out.interface = interface_;
  out.attached = IsAttached(ifindex_, directory_);
  out.mode = attachment_.mode;
  if (out.attached) {
    out.note = attachment_.note;
  } else if (::if_nametoindex(interface_.c_str()) == 0) {
    out.note = "the interface is gone; attached again when it returns";
  } else {
    out.note = attach_error_.empty() ? "detached by somebody else" : attach_error_;
  }
  if (!current_) return out;
  const fw_image& header = current_->header();
  out.generation = header.generation;
  out.dry_run = (header.flags & FW_IMAGE_DRY_RUN) != 0;
  out.confirm_deadline_ns = header.confirm_deadline_ns;
  out.source = source_;
  out.image_bytes = current_->bytes() + (previous_ ? previous_->bytes() : 0);
  out.map_bytes = program_->map_bytes();
  out.run_time_ns = program_->run_time_ns();
  const uint64_t now_ns = clock_.MonotonicNs();
  std::ranges::copy_if(rules_, std::back_inserter(out.rules), [now_ns](const LoadedRule& rule) {
    return rule.deadline_ns == 0 || now_ns < rule.deadline_ns;
  });
  out.expired_rules = rules_.size() - out.rules.size();
  for (LoadedRule& rule : out.rules) rule.counts = program_->RuleCounts(rule.slot);
  out.counts = program_->Counts();
  return out;
}

}  // namespace firewatch::agent
