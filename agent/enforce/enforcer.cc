// SPDX-License-Identifier: Apache-2.0
#include "agent/enforce/enforcer.h"

#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <net/if.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "agent/core/bpf_handles.h"
#include "agent/enforce/links.h"
#include "base/status.h"

namespace firewatch::agent {

// A firewall with the reader of its ring. The ring buffer goes first.
struct Enforcer::Watched {
  std::unique_ptr<Firewall> firewall;
  std::vector<fw_drop_event> batch;
  BpfRingBuffer ring;

  static std::unique_ptr<Watched> Make(std::unique_ptr<Firewall> from) {
    auto out = std::make_unique<Watched>();
    out->firewall = std::move(from);
    out->ring.reset(::ring_buffer__new(
        out->firewall->events_fd(),
        [](void* context, void* data, size_t size) {
          if (size >= sizeof(fw_drop_event)) {
            static_cast<Watched*>(context)->batch.push_back(*static_cast<fw_drop_event*>(data));
          }
          return 0;
        },
        out.get(), nullptr));
    return out;
  }
};

Enforcer::Enforcer(EnforcerOptions options, const base::Clock& clock)
    : options_(std::move(options)),
      directory_(fmt::format("{}/netns-{}", options_.pin_directory, NamespaceKey())),
      clock_(clock),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      links_(OpenLinkMonitor()) {
  SetLoadsPerSecond(options_.loads_per_second);
}

void Enforcer::SetLoadsPerSecond(uint32_t loads) {
  const base::MutexLock lock(mutex_);
  allowance_.SetRate(loads);
}

uint64_t Enforcer::refused_loads() const {
  const base::MutexLock lock(mutex_);
  return refused_loads_;
}

std::string Enforcer::DirectoryOf(const std::string& interface) const {
  return fmt::format("{}/{}", directory_, interface);
}

void Enforcer::TakeOverAll() {
  std::vector<std::string> interfaces;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory_, error)) {
    if (entry.is_directory()) interfaces.push_back(entry.path().filename());
  }
  const base::MutexLock lock(mutex_);
  for (const std::string& interface : interfaces) {
    auto firewall = Firewall::TakeOver(interface, DirectoryOf(interface), clock_);
    if (firewall.ok()) {
      spdlog::info("{}: took over generation {} of the firewall's rules", interface,
                   (*firewall)->State().generation);
      firewalls_[interface] = Watched::Make(*std::move(firewall));
      continue;
    }
    spdlog::warn("{}", base::Message(firewall.status()));
    if (firewall.status().code() != absl::StatusCode::kNotFound) {
      problems_[interface] = fmt::format("{}: {}", interface, base::Message(firewall.status()));
    }
  }
}

absl::StatusOr<std::unique_ptr<Enforcer>> Enforcer::Start(EnforcerOptions options,
                                                          const base::Clock& clock) {
  std::unique_ptr<Enforcer> out(new Enforcer(std::move(options), clock));
  if (!out->wake_.valid()) return base::ErrnoStatus(errno, "eventfd");
  if (!out->links_.valid()) {
    spdlog::warn("interfaces that come back are not attached again: no netlink socket");
  }
  out->TakeOverAll();
  out->thread_ = std::thread(
      [enforcer = out.get()] { enforcer->options_.run_thread([enforcer] { enforcer->Watch(); }); });
  return out;
}

Enforcer::~Enforcer() {
  {
    const base::MutexLock lock(mutex_);
    stopping_ = true;
  }
  Wake();
  if (thread_.joinable()) thread_.join();
}

void Enforcer::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof(one));
}

void Enforcer::AddEvent(const std::string& interface, const fw_drop_event& event) {
  DropEvent out{.event = event, .interface = interface};
  const auto found = firewalls_.find(interface);
  if (found != firewalls_.end() && event.rule != FW_EVENT_NO_RULE) {
    out.rule = found->second->firewall->RuleName(event.generation, event.rule);
  }
  if (event.has_ports != 0) {
    out.owner = owners_.Find(static_cast<uint8_t>(event.protocol), event.destination_port,
                             clock_.MonotonicNs());
  }
  if (events_.size() == kMaxEvents) events_.pop_front();
  events_.push_back(std::move(out));
}

void Enforcer::FollowLinks() {
  for (const auto& [interface, watched] : firewalls_) {
    const auto attached = watched->firewall->Reattach();
    if (!attached.ok()) {
      spdlog::error("{}", base::Message(attached.status()));
    } else if (*attached) {
      spdlog::info("{}: the interface is back, and its firewall with it", interface);
    }
  }
  for (auto at = waiting_.begin(); at != waiting_.end();) {
    if (::if_nametoindex(at->first.c_str()) == 0) {
      ++at;
      continue;
    }
    const absl::Status status = LoadLocked(at->first, at->second.rules, at->second.options);
    if (!status.ok()) {
      spdlog::error("{}", base::Message(status));
      problems_[at->first] = fmt::format("{}: {}", at->first, base::Message(status));
    }
    at = waiting_.erase(at);
  }
}

void Enforcer::Watch() {
  bool links_changed = true;  // since before the socket was there
  for (;;) {
    // poll passes over what is negative.
    std::vector<pollfd> fds = {{wake_.get(), POLLIN, 0},
                               {links_.valid() ? links_.get() : -1, POLLIN, 0}};
    int timeout_ms = -1;
    {
      const base::MutexLock lock(mutex_);
      if (stopping_) return;
      if (links_changed) FollowLinks();
      for (auto at = firewalls_.begin(); at != firewalls_.end();) {
        Watched& watched = *at->second;
        ::ring_buffer__consume(watched.ring.get());
        for (const fw_drop_event& event : watched.batch) AddEvent(at->first, event);
        watched.batch.clear();
        const bool stays = watched.firewall->Tick();
        if (!stays) {
          at = firewalls_.erase(at);
          continue;
        }
        const uint64_t deadline_ns = watched.firewall->ConfirmDeadlineNs();
        if (deadline_ns > 0) {
          const uint64_t now_ns = clock_.MonotonicNs();
          const auto left_ms = static_cast<int>(
              deadline_ns > now_ns
                  ? std::min<uint64_t>((deadline_ns - now_ns) / 1'000'000 + 1, kMaxConfirmMs)
                  : 1);
          timeout_ms = timeout_ms < 0 ? left_ms : std::min(timeout_ms, left_ms);
        }
        fds.push_back({::ring_buffer__epoll_fd(watched.ring.get()), POLLIN, 0});
        ++at;
      }
    }
    // Between here and there a firewall may be unloaded and its descriptor closed: then poll says
    // so, or another's event wakes us for nothing. Each change wakes us, too.
    if (::poll(fds.data(), fds.size(), timeout_ms) < 0) continue;
    if (fds[0].revents != 0) {
      uint64_t count = 0;
      [[maybe_unused]] const ssize_t size = ::read(wake_.get(), &count, sizeof(count));
    }
    links_changed = fds[1].revents != 0;
    if (links_changed) DrainLinkMonitor(links_.get());
  }
}

absl::Status Enforcer::LoadLocked(const std::string& interface, const RuleSet& rules,
                                  const LoadOptions& options) {
  if (interface.empty() || interface.find('/') != std::string::npos || interface.size() > 15) {
    return base::InvalidArgument("\"{}\" is no name of an interface", interface);
  }
  LoadOptions bounded = options;
  bounded.max_image_bytes = options_.max_image_bytes;
  const auto found = firewalls_.find(interface);
  // One whose interface has gone, or that somebody has detached, begins anew.
  if (found != firewalls_.end() && found->second->firewall->Attached()) {
    return found->second->firewall->Load(rules, bounded);
  }
  ASSIGN_OR_RETURN(auto firewall,
                   Firewall::Start(interface, DirectoryOf(interface), rules, bounded, clock_));
  firewalls_[interface] = Watched::Make(std::move(firewall));
  problems_.erase(interface);
  return absl::OkStatus();
}

absl::Status Enforcer::Load(const std::string& interface, const RuleSet& rules,
                            const LoadOptions& options) {
  {
    const base::MutexLock lock(mutex_);
    RETURN_IF_ERROR(LoadLocked(interface, rules, options));
    waiting_.erase(interface);
  }
  Wake();
  return absl::OkStatus();
}

absl::Status Enforcer::LoadWhenThere(const std::string& interface, const RuleSet& rules,
                                     const LoadOptions& options) {
  const absl::Status status = Load(interface, rules, options);
  if (!absl::IsNotFound(status)) return status;
  spdlog::warn("{}; its rules wait for it", base::Message(status));
  const base::MutexLock lock(mutex_);
  waiting_[interface] = {rules, options};
  return absl::OkStatus();
}

absl::Status Enforcer::Confirm(const std::string& interface) {
  const base::MutexLock lock(mutex_);
  const auto found = firewalls_.find(interface);
  if (found == firewalls_.end()) return base::NotFound("{}: no rules are loaded", interface);
  return found->second->firewall->Confirm();
}

absl::Status Enforcer::Unload(const std::string& interface) {
  {
    const base::MutexLock lock(mutex_);
    const auto found = firewalls_.find(interface);
    if (found == firewalls_.end()) {
      if (waiting_.erase(interface) == 0 && !problems_.contains(interface)) {
        return base::NotFound("{}: no rules are loaded", interface);
      }
      // Another version's.
      DetachAndUnpin(::if_nametoindex(interface.c_str()), DirectoryOf(interface));
      problems_.erase(interface);
    } else {
      found->second->firewall->Unload();
      firewalls_.erase(found);
    }
    if (firewalls_.empty()) {
      ::rmdir(directory_.c_str());
      ::rmdir(options_.pin_directory.c_str());  // not while other namespaces have pins there
    }
  }
  Wake();
  return absl::OkStatus();
}

std::vector<FirewallState> Enforcer::States() const {
  const base::MutexLock lock(mutex_);
  std::vector<FirewallState> out;
  for (const auto& [interface, watched] : firewalls_) out.push_back(watched->firewall->State());
  return out;
}

std::vector<DropEvent> Enforcer::Events(size_t limit) const {
  const base::MutexLock lock(mutex_);
  const size_t skip = events_.size() > limit ? events_.size() - limit : 0;
  return {events_.begin() + static_cast<ptrdiff_t>(skip), events_.end()};
}

std::vector<std::string> Enforcer::Problems() const {
  const base::MutexLock lock(mutex_);
  std::vector<std::string> out;
  for (const auto& [interface, problem] : problems_) out.push_back(problem);
  for (const auto& [interface, rules] : waiting_) {
    out.push_back(interface + ": there is no such interface; its rules wait for it");
  }
  return out;
}

}  // namespace firewatch::agent
