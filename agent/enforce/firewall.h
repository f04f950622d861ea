// SPDX-License-Identifier: Apache-2.0
// The firewall of one interface: rules in force, their counters, attachment, confirmation, and the
// return after a crash. Everything that must outlive the agent is pinned in one directory.
//
// A load that is not confirmed in time is undone by the program itself
// (fw_image.confirm_deadline_ns); Tick only tidies up behind it.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/enforce/attachment.h"
#include "agent/enforce/firewall_program.h"
#include "agent/enforce/image_map.h"
#include "agent/enforce/rule.h"
#include "base/clock.h"

namespace firewatch::agent {

struct LoadOptions {
  bool dry_run = false;
  uint64_t confirm_within_ms = 0;  // 0: in force at once and for good
  bool allow_default_route = false;
  bool replace = false;  // another's program
  AttachMode mode = AttachMode::kAuto;
  std::string source;  // where the rules come from, for people
  size_t max_image_bytes = size_t{48} << 20;
};

// A rule as it stands in the kernel; what the image's metadata keeps of it.
struct LoadedRule {
  std::string name, comment, match, action;
  uint32_t priority = 0;
  uint16_t slot = 0;
  uint32_t bucket_key = 0;
  uint64_t deadline_ns = 0;  // CLOCK_MONOTONIC; 0: never
  uint64_t prefixes = 0;
  fw_rule_counts counts{};
};

struct FirewallState {
  std::string interface;
  bool attached = false;
  AttachMode mode = AttachMode::kNative;
  std::string note;  // why not a better mode; why it is not attached
  uint64_t generation = 0;
  bool dry_run = false;
  uint64_t confirm_deadline_ns = 0;  // 0: confirmed
  std::string source;
  uint64_t image_bytes = 0, map_bytes = 0, run_time_ns = 0;
  std::vector<LoadedRule> rules;  // without those whose time is over
  size_t expired_rules = 0;
  FirewallCounts counts{};
};

// One thread at a time; calls may take milliseconds (the kernel waits for packets in flight).
class Firewall {
 public:
  // `directory` is the interface's own below the pin directory. With pins in it, takes over what is
  // in force, without a gap; NotFound (and all of it cleared away) when it is not attached any
  // more; FailedPrecondition when another version left it: it stays in force, and Load replaces it.
  // Where the interface itself is gone, rules and counters wait for its return (Reattach).
  static absl::StatusOr<std::unique_ptr<Firewall>> TakeOver(const std::string& interface,
                                                            const std::string& directory,
                                                            const base::Clock& clock);
  // Loads programs and rules, attaches. On an error nothing stays.
  static absl::StatusOr<std::unique_ptr<Firewall>> Start(const std::string& interface,
                                                         const std::string& directory,
                                                         const RuleSet& rules,
                                                         const LoadOptions& options,
                                                         const base::Clock& clock);
  // Enforcement goes on.
  ~Firewall();
  Firewall(const Firewall&) = delete;
  Firewall& operator=(const Firewall&) = delete;

  // A new generation in the place of the one in force, for packets that come after this has
  // returned. On an error the old stays whole.
  absl::Status Load(const RuleSet& rules, const LoadOptions& options);
  // FailedPrecondition when nothing waits for it, or when it comes too late.
  absl::Status Confirm();
  // Detaches, and removes every pin. This object is done then.
  void Unload();
  // After the interface has gone and another of its name has come: attaches there, with the same
  // rules and counters. False: nothing was to be done; somebody has detached it, say, which is left
  // so. An error: it should have been attached and could not.
  absl::StatusOr<bool> Reattach();
  // Settles a return that the program has made by itself. False: there was no generation before,
  // all is unloaded.
  bool Tick();

  FirewallState State() const;
  bool Attached() const { return IsAttached(ifindex_, directory_); }
  // 0: nothing waits for a confirmation.
  uint64_t ConfirmDeadlineNs() const {
    return current_ ? current_->header().confirm_deadline_ns : 0;
  }
  int events_fd() const { return program_->events_fd(); }
  // Of an event: the rule's name in the generation in force; "" for none or an older generation.
  std::string RuleName(uint64_t generation, uint32_t index) const;

 private:
  Firewall(std::string interface, std::string directory, const base::Clock& clock)
      : interface_(std::move(interface)), directory_(std::move(directory)), clock_(clock) {}
  absl::Status CheckLoad(const LoadOptions& options) const;
  absl::Status ReadRules();
  // A slot for the counters of a new rule, cleared: not `taken`, nor used by a packet under way.
  absl::StatusOr<uint16_t> FreeSlot(const std::bitset<FW_RULE_SLOTS>& taken);

  const std::string interface_;
  const std::string directory_;
  const base::Clock& clock_;
  uint32_t ifindex_ = 0;  // as attached last; 0: the interface was not there
  AttachMode wanted_mode_ = AttachMode::kAuto;
  std::string attach_error_;  // of the last Reattach; "" when it has worked
  std::unique_ptr<FirewallProgram> program_;
  Attachment attachment_;
  std::optional<ImageMap> current_;
  std::optional<ImageMap> previous_;  // while current_ waits for its confirmation
  std::vector<LoadedRule> rules_;
  std::string source_;
  // Per slot: the swap that took its last rule out of force.
  std::array<uint64_t, FW_RULE_SLOTS> freed_by_{};
};

}  // namespace firewatch::agent
