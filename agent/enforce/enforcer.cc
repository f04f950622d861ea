// SPDX-License-Identifier: Apache-2.0
#include "agent/enforce/enforcer.h"

#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "agent/core/bpf_handles.h"
#include "agent/enforce/rules_file.h"
#include "base/check.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

using Json = nlohmann::json;
using transport::HttpRequest;
using transport::HttpResponse;

constexpr std::string_view kPrefix = "/api/v1/xdp";
constexpr size_t kMaxEvents = 1'000;
constexpr size_t kMaxBody = size_t{48} << 20;
constexpr uint64_t kMaxConfirmMs = 3'600'000;

int HttpStatusOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return 400;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 413;
    default:
      return 500;
  }
}

HttpResponse Answer(const Json& json) {
  return {.content_type = "application/json",
          .body = json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"};
}
HttpResponse Answer(const absl::Status& status) {
  if (status.ok()) return Answer(Json{{"ok", true}});
  return transport::ErrorResponse(HttpStatusOf(status), base::Message(status));
}

Json ToJson(const FirewallState& state, uint64_t now_ns) {
  static constexpr std::string_view kCountNames[] = {
#define FW_NAME(constant, name, text) name,
      FW_FIREWALL_COUNTS(FW_NAME)
#undef FW_NAME
  };
  Json out = {{"interface", state.interface},
              {"attached", state.attached},
              {"mode", AttachModeName(state.mode)},
              {"note", state.note},
              {"generation", state.generation},
              {"dry_run", state.dry_run},
              {"source", state.source},
              {"map_bytes", state.map_bytes + state.image_bytes},
              {"rules", Json::array()},
              {"counts", Json::object()}};
  if (state.confirm_deadline_ns > 0) {
    out["confirm_within_ms"] =
        state.confirm_deadline_ns > now_ns ? (state.confirm_deadline_ns - now_ns) / 1'000'000 : 0;
  }
  for (size_t i = 0; i < FW_FIREWALL_COUNT; ++i) out["counts"][kCountNames[i]] = state.counts[i];
  for (const LoadedRule& rule : state.rules) {
    Json one = {{"name", rule.name},
                {"match", rule.match},
                {"action", rule.action},
                {"priority", rule.priority},
                {"comment", rule.comment},
                {"prefixes", rule.prefixes},
                {"packets", rule.counts.packets},
                {"bytes", rule.counts.bytes},
                {"dropped_packets", rule.counts.dropped_packets},
                {"dropped_bytes", rule.counts.dropped_bytes},
                {"would_drop_packets", rule.counts.would_drop_packets},
                {"would_drop_bytes", rule.counts.would_drop_bytes},
                {"sampled", rule.counts.sampled}};
    if (rule.deadline_ns > 0) {
      one["ttl_ms"] = rule.deadline_ns > now_ns ? (rule.deadline_ns - now_ns) / 1'000'000 : 0;
    }
    out["rules"].push_back(std::move(one));
  }
  out["expired_rules"] = state.expired_rules;
  return out;
}

std::string AddressText(const fw_drop_event& event, bool source) {
  const uint64_t high = source ? event.source_high : event.destination_high;
  const uint64_t low = source ? event.source_low : event.destination_low;
  return event.family == FW_FAMILY_IPV4 ? FormatAddress4(static_cast<uint32_t>(low))
                                        : FormatAddress6({high, low});
}

Json ToJson(const DropEvent& event, const base::Clock& clock) {
  constexpr std::string_view kKinds[] = {"dropped", "would_drop", "sampled"};
  const fw_drop_event& from = event.event;
  const int64_t age_ns = static_cast<int64_t>(clock.MonotonicNs() - from.time_ns);
  Json out = {{"time_unix_ms", (clock.Now().unix_ns - age_ns) / 1'000'000},
              {"interface", event.interface},
              {"kind", kKinds[std::min<size_t>(from.kind, 2)]},
              {"rule", event.rule},
              {"frame_bytes", from.frame_bytes}};
  if (from.rule != FW_EVENT_NO_RULE || from.source_low != 0 || from.source_high != 0) {
    out["src"] = AddressText(from, true);
    out["dst"] = AddressText(from, false);
    if (from.protocol < FW_PROTOCOL_UNKNOWN) out["protocol"] = from.protocol;
  }
  if (from.has_ports != 0) {
    out["sport"] = from.source_port;
    out["dport"] = from.destination_port;
  }
  if (event.owner) out["process"] = {{"pid", event.owner->pid}, {"comm", event.owner->comm}};
  return out;
}

bool Flag(const HttpRequest& request, std::string_view name) {
  const auto value = request.Query(name);
  return value && (*value == "1" || *value == "true" || value->empty());
}

absl::StatusOr<uint64_t> NumberOf(const HttpRequest& request, std::string_view name, uint64_t max,
                                  uint64_t otherwise) {
  const auto text = request.Query(name);
  if (!text) return otherwise;
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || end != text->data() + text->size() || value > max) {
    return base::InvalidArgument("{}: \"{}\" is not a number up to {}", name, *text, max);
  }
  return value;
}

// What tells this thread's network namespace from others: its cookie, which is never given twice;
// its inode before Linux 5.14, which is, once the namespace is gone.
std::string NamespaceKey() {
  const base::UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  constexpr int kNetnsCookie = 71;  // SO_NETNS_COOKIE
  if (socket.valid() && ::getsockopt(socket.get(), SOL_SOCKET, kNetnsCookie, &cookie, &size) == 0) {
    return std::to_string(cookie);
  }
  struct stat info{};
  return ::stat("/proc/thread-self/ns/net", &info) == 0 ? fmt::format("i{}", info.st_ino) : "i0";
}

base::UniqueFd OpenLinkMonitor() {
  base::UniqueFd out(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = RTMGRP_LINK;
  if (out.valid() &&
      ::bind(out.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    out.Reset();
  }
  return out;
}

// What changed is asked for anew, so messages are thrown away, and lost ones do no harm.
void Drain(int fd) {
  char ignored[8192];
  while (::recv(fd, ignored, sizeof(ignored), 0) > 0 || errno == ENOBUFS) {
  }
}

}  // namespace

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
      links_(OpenLinkMonitor()) {}

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
    if (links_changed) Drain(links_.get());
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

HttpResponse Enforcer::HandleLoad(const HttpRequest& request) {
  if (request.body.size() > kMaxBody)
    return transport::ErrorResponse(413, "the rules are too large");
  LoadOptions options;
  options.dry_run = Flag(request, "dry_run");
  options.allow_default_route = Flag(request, "allow_default_route");
  options.replace = Flag(request, "replace");
  const auto confirm_ms = NumberOf(request, "confirm_within_ms", kMaxConfirmMs, 0);
  if (!confirm_ms.ok()) return Answer(confirm_ms.status());
  options.confirm_within_ms = *confirm_ms;
  const auto mode = ParseAttachMode(request.Query("mode").value_or("auto"));
  if (!mode.ok()) return Answer(mode.status());
  options.mode = *mode;

  std::string yaml = request.body;
  std::string name = "rules";
  std::map<std::string, std::string> lists;
  if (request.Header("content-type").starts_with("application/json")) {
    const Json json = Json::parse(request.body, nullptr, /*allow_exceptions=*/false);
    try {
      yaml = json.at("rules").get<std::string>();
      name = json.value("name", name);
      if (json.contains("lists")) json.at("lists").get_to(lists);
    } catch (const Json::exception& error) {
      return transport::ErrorResponse(400, "the body is not {\"rules\": TEXT, \"lists\": {…}}");
    }
  }
  options.source = name;
  const auto rules =
      ParseRules(yaml, name, [&](const std::string& list) -> absl::StatusOr<std::string> {
        const auto found = lists.find(list);
        if (found != lists.end()) return found->second;
        return base::InvalidArgument("the list \"{}\" did not come with the rules", list);
      });
  if (!rules.ok()) return Answer(rules.status());
  const std::string interface(request.Query("interface").value_or(""));
  if (const absl::Status status = Load(interface, *rules, options); !status.ok())
    return Answer(status);
  for (const FirewallState& state : States()) {
    if (state.interface == interface) return Answer(ToJson(state, clock_.MonotonicNs()));
  }
  return Answer(Json{{"ok", true}});
}

std::optional<HttpResponse> Enforcer::Handle(const HttpRequest& request) {
  if (!request.path.starts_with(kPrefix)) return std::nullopt;
  const std::string_view rest = std::string_view(request.path).substr(kPrefix.size());
  const bool is_post = request.method == "POST";
  const std::string interface(request.Query("interface").value_or(""));
  if (rest == "/load" || rest == "/confirm" || rest == "/unload") {
    if (!is_post) return transport::ErrorResponse(405, "POST");
    if (interface.empty()) return transport::ErrorResponse(400, "interface must be named");
    if (rest == "/load") return HandleLoad(request);
    return Answer(rest == "/confirm" ? Confirm(interface) : Unload(interface));
  }
  if (is_post) return transport::ErrorResponse(405, "GET");
  if (rest.empty() || rest == "/" || rest == "/stats") {
    Json out = {{"interfaces", Json::array()}, {"problems", Problems()}};
    for (const FirewallState& state : States()) {
      if (interface.empty() || state.interface == interface) {
        out["interfaces"].push_back(ToJson(state, clock_.MonotonicNs()));
      }
    }
    return Answer(out);
  }
  if (rest == "/events") {
    const auto limit = NumberOf(request, "limit", kMaxEvents, 100);
    if (!limit.ok()) return Answer(limit.status());
    Json out = {{"events", Json::array()}};
    for (const DropEvent& event : Events(*limit)) out["events"].push_back(ToJson(event, clock_));
    return Answer(out);
  }
  return transport::ErrorResponse(404, "no such path");
}

}  // namespace firewatch::agent
