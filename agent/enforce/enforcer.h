// SPDX-License-Identifier: Apache-2.0
// The firewalls of all interfaces, behind one HTTP interface:
//
//   GET  /api/v1/xdp                          interfaces, rules and counters
//   GET  /api/v1/xdp/stats                    the same (?interface=IF)
//   GET  /api/v1/xdp/events                   drops and samples, newest last (?limit=N)
//   POST /api/v1/xdp/load?interface=IF        body: YAML, or JSON
//   {"name","rules","lists":{NAME:TEXT}}
//        &dry_run=1 &confirm_within_ms=N &allow_default_route=1 &replace=1
//        &mode=auto|native|generic|tc
//   POST /api/v1/xdp/confirm?interface=IF
//   POST /api/v1/xdp/unload?interface=IF
//
// Errors: {"error": "..."}: 400 rules or parameters, 404 no such interface or nothing loaded, 409
// refused as things are, 413 too large, 429 too many loads (Retry-After says when).
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/enforce/firewall.h"
#include "agent/enforce/load_allowance.h"
#include "agent/enforce/socket_owner.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/mutex.h"
#include "base/unique_fd.h"
#include "transport/http_server.h"

namespace firewatch::agent {

struct EnforcerOptions {
  // Pins are in PIN_DIRECTORY/netns-ID/INTERFACE: network namespaces that share a BPF file system
  // may have interfaces of one name.
  std::string pin_directory = "/sys/fs/bpf/firewatch";
  size_t max_image_bytes = size_t{48} << 20;
  uint32_t loads_per_second = 4;  // by HTTP; 0: as many as come
  // Runs around the body of the thread, and around each load: measures it.
  std::function<void(const std::function<void()>&)> run_thread = [](const auto& body) { body(); };
};

struct DropEvent {
  fw_drop_event event{};
  std::string interface, rule;
  std::optional<SocketOwner> owner;  // of the destination's port, on this machine
};

// Any thread. One thread of its own waits for events and deadlines; it sleeps while there are none.
class Enforcer {
 public:
  static constexpr size_t kMaxEvents = 1'000;  // that are kept
  static constexpr uint64_t kMaxConfirmMs = 3'600'000;

  // Takes over what is pinned for the network namespace of this thread, to which interfaces belong
  // from then on. `clock` must outlive it.
  static absl::StatusOr<std::unique_ptr<Enforcer>> Start(EnforcerOptions options,
                                                         const base::Clock& clock);
  // Enforcement goes on.
  ~Enforcer();
  Enforcer(const Enforcer&) = delete;
  Enforcer& operator=(const Enforcer&) = delete;

  absl::Status Load(const std::string& interface, const RuleSet& rules, const LoadOptions& options)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // The same, where the interface need not be there yet: then it is loaded when it comes, and until
  // then a problem.
  absl::Status LoadWhenThere(const std::string& interface, const RuleSet& rules,
                             const LoadOptions& options) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Confirm(const std::string& interface) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Unload(const std::string& interface) ABSL_LOCKS_EXCLUDED(mutex_);
  std::vector<FirewallState> States() const ABSL_LOCKS_EXCLUDED(mutex_);
  std::vector<DropEvent> Events(size_t limit) const ABSL_LOCKS_EXCLUDED(mutex_);
  // What is pinned and could not be taken over, or waits for its interface: "eth0: why".
  std::vector<std::string> Problems() const ABSL_LOCKS_EXCLUDED(mutex_);
  std::optional<transport::HttpResponse> Handle(const transport::HttpRequest& request);
  // Loads that came by HTTP faster than they may.
  uint64_t refused_loads() const ABSL_LOCKS_EXCLUDED(mutex_);
  void SetLoadsPerSecond(uint32_t loads) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Watched;
  struct Waiting {
    RuleSet rules;
    LoadOptions options;
  };
  Enforcer(EnforcerOptions options, const base::Clock& clock);
  transport::HttpResponse HandleLoad(const transport::HttpRequest& request)
      ABSL_LOCKS_EXCLUDED(mutex_);
  transport::HttpResponse LoadFrom(const transport::HttpRequest& request)
      ABSL_LOCKS_EXCLUDED(mutex_);
  std::string DirectoryOf(const std::string& interface) const;
  absl::Status LoadLocked(const std::string& interface, const RuleSet& rules,
                          const LoadOptions& options) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeOverAll() ABSL_LOCKS_EXCLUDED(mutex_);
  // Interfaces have come or gone.
  void FollowLinks() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Watch() ABSL_LOCKS_EXCLUDED(mutex_);
  void Wake();
  void AddEvent(const std::string& interface, const fw_drop_event& event)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const EnforcerOptions options_;
  const std::string directory_;  // of this network namespace
  const base::Clock& clock_;
  base::UniqueFd wake_;
  base::UniqueFd links_;  // netlink: changes of interfaces; invalid: they are not followed
  mutable base::Mutex mutex_;
  std::map<std::string, std::unique_ptr<Watched>> firewalls_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::string> problems_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Waiting> waiting_ ABSL_GUARDED_BY(mutex_);
  std::deque<DropEvent> events_ ABSL_GUARDED_BY(mutex_);
  SocketOwners owners_ ABSL_GUARDED_BY(mutex_);
  LoadAllowance allowance_ ABSL_GUARDED_BY(mutex_);
  uint64_t refused_loads_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace firewatch::agent
