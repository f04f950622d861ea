// SPDX-License-Identifier: Apache-2.0
#include "agent/network/network_monitor.h"

#include <dirent.h>
#include <fmt/format.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include <algorithm>

#include <cerrno>
#include <set>
#include <utility>

#include "agent/network/connections_json.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

constexpr size_t kMaxNamespaces = 256;
constexpr uint64_t kOwnersEveryNs = 2'000'000'000;
constexpr uint64_t kUnfollowedEveryNs = 30'000'000'000;
constexpr int kRareReports = 6;
// Above this many per CPU that begin and are not followed, changes of state are not watched: they
// would cost half a percent of each CPU and more.
constexpr uint64_t kStormTimesFollowed = 8;
constexpr uint64_t kSmallestStorm = 4'000;
constexpr uint64_t kStormSeenNs = 400'000'000;
constexpr uint64_t kStormOverNs = 4'000'000'000;
// A ring that fills again at once, as in a storm, does not wake more often.
constexpr int kShortestPauseMs = 50;

// One path per network namespace that some process lives in, without that of the caller.
std::vector<std::string> OtherNamespaces() {
  std::vector<std::string> paths;
  std::set<ino_t> known;
  struct stat info{};
  if (::stat("/proc/self/ns/net", &info) == 0) known.insert(info.st_ino);
  DIR* directory = ::opendir("/proc");
  if (directory == nullptr) return paths;
  while (const dirent* entry = ::readdir(directory)) {
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
    std::string path = fmt::format("/proc/{}/ns/net", entry->d_name);
    if (::stat(path.c_str(), &info) != 0 || !known.insert(info.st_ino).second) continue;
    paths.push_back(std::move(path));
    if (paths.size() >= kMaxNamespaces) break;
  }
  ::closedir(directory);
  return paths;
}

NetworkProcess Resolve(const Probe& probe, const NetworkMonitor::Describe& describe,
                       const fw_net_owner& owner) {
  const auto captured = probe.FindProcess(owner);
  if (captured) return describe(*captured);
  fw_net_process unknown{};
  unknown.pid = owner.tgid;
  return describe(unknown);
}

uint64_t StormPerSecond(const ProbeOptions& options) {
  const uint64_t cpus = std::max(1u, std::thread::hardware_concurrency());
  return cpus * std::max(kSmallestStorm, kStormTimesFollowed * options.follow_per_second);
}

}  // namespace

NetworkMonitor::NetworkMonitor(NetworkMonitorOptions options, const base::Clock& clock,
                               std::shared_ptr<NetworkMetrics> metrics, Describe describe,
                               OnWindow on_window)
    : options_(std::move(options)),
      clock_(clock),
      metrics_(std::move(metrics)),
      describe_(std::move(describe)),
      on_window_(std::move(on_window)),
      storm_per_second_(StormPerSecond(options_.probe)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      table_(options_.table, [this](const fw_net_owner& owner) ABSL_NO_THREAD_SAFETY_ANALYSIS {
        return Resolve(*probe_, describe_, owner);
      }) {}

absl::StatusOr<std::unique_ptr<NetworkMonitor>> NetworkMonitor::Start(
    NetworkMonitorOptions options, const base::Clock& clock,
    std::shared_ptr<NetworkMetrics> metrics, Describe describe, Around around, OnWindow on_window) {
  if (options.report_interval_ms < 100 || options.report_interval_ms > 600'000) {
    return base::InvalidArgument("report interval of {} ms: must be 100 to 600000",
                                 options.report_interval_ms);
  }
  std::unique_ptr<NetworkMonitor> monitor(new NetworkMonitor(
      std::move(options), clock, std::move(metrics), std::move(describe), std::move(on_window)));
  if (!monitor->wake_.valid()) return base::ErrnoStatus(errno, "eventfd");
  {
    base::MutexLock lock(monitor->mutex_);
    ASSIGN_OR_RETURN(monitor->probe_, Probe::Open(monitor->options_.probe));
    if (!monitor->options_.drops) RETURN_IF_ERROR(monitor->probe_->SetDrops(false));
    monitor->table_.SetObserver(
        [raw = monitor.get()](const NetworkEdge& edge, const NetworkTotals& delta)
            ABSL_NO_THREAD_SAFETY_ANALYSIS {
              raw->metrics_->Count(edge, raw->table_.processes()[edge.process], delta);
            });
    if (const absl::Status status = monitor->probe_->FindOlder(OtherNamespaces()); !status.ok()) {
      spdlog::warn("TCP connections from before the agent: {}", base::Message(status));
    }
    monitor->ReportLocked([](const fw_net_record&, size_t) {});
    RETURN_IF_ERROR(monitor->health_);
  }
  monitor->thread_ = std::thread([raw = monitor.get(), around = std::move(around)] {
    if (around) {
      around([raw] { raw->Run(); });
    } else {
      raw->Run();
    }
  });
  return monitor;
}

NetworkMonitor::~NetworkMonitor() {
  stopping_.store(true);
  const uint64_t one = 1;
  if (wake_.valid() && ::write(wake_.get(), &one, sizeof(one)) < 0) {
    spdlog::error("wake the network monitor: {}", errno);
  }
  if (thread_.joinable()) thread_.join();
}

void NetworkMonitor::Run() {
  Loop();
  if (!on_window_) return;
  Report();
  on_window_(*this);
}

void NetworkMonitor::Loop() {
  int ring = -1;
  {
    base::MutexLock lock(mutex_);
    ring = probe_->WaitFd();
  }
  const uint64_t start_ns = clock_.MonotonicNs();
  uint64_t next_ns = start_ns + options_.report_interval_ms * 1'000'000;
  uint64_t next_window_ns = start_ns + options_.window_ms * 1'000'000;
  while (!stopping_.load()) {
    if (!Step(ring, &next_ns) || !on_window_ || clock_.MonotonicNs() < next_window_ns) continue;
    on_window_(*this);
    next_window_ns = clock_.MonotonicNs() + options_.window_ms * 1'000'000;
  }
}

bool NetworkMonitor::Step(int ring, uint64_t* next_ns) {
  const uint64_t now_ns = clock_.MonotonicNs();
  const int wait_ms = *next_ns > now_ns ? static_cast<int>((*next_ns - now_ns) / 1'000'000) + 1 : 0;
  pollfd files[] = {{.fd = wake_.get(), .events = POLLIN}, {.fd = ring, .events = POLLIN}};
  ::poll(files, 2, wait_ms);
  if (stopping_.load()) return false;
  uint64_t ignored = 0;
  if (::read(wake_.get(), &ignored, sizeof(ignored)) < 0 && errno != EAGAIN) {
    spdlog::error("eventfd: {}", errno);
  }
  base::MutexLock lock(mutex_);
  ApplyDetail();
  if (clock_.MonotonicNs() >= *next_ns) {
    ReportLocked([](const fw_net_record&, size_t) {});
    const int slower = applied_detail_ >= 2 ? kRareReports : 1;
    *next_ns = clock_.MonotonicNs() +
               options_.report_interval_ms * 1'000'000 * static_cast<uint64_t>(slower);
    return true;
  }
  if ((files[1].revents & POLLIN) == 0) return false;
  bool woken = false;
  probe_->DrainRecords([&](const fw_net_record& record) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    woken |= record.kind == FW_NET_RECORD_WAKE;
    table_.AddRecord(record);
  });
  if (woken) {
    absl::Status status =
        probe_->TakeEdges([&](const fw_net_edge& edge, const fw_net_edge_counts& counts)
                              ABSL_NO_THREAD_SAFETY_ANALYSIS { table_.AddEdge(edge, counts); });
    status.Update(LookForStorm(clock_.MonotonicNs()));
    if (!status.ok()) spdlog::error("{}", base::Message(status));
  }
  // Under the lock nobody waits long for: the pause bounds what a storm may cost.
  ::poll(nullptr, 0, kShortestPauseMs);
  return false;
}

// What began in a storm and lives on is worth more than what has passed with it.
absl::Status NetworkMonitor::FindUnfollowed(uint64_t now_ns) {
  const uint64_t count = probe_->Losses()[FW_NET_LOSS_NOT_FOLLOWED];
  if (count == not_followed_ || now_ns - unfollowed_searched_ns_ < kUnfollowedEveryNs) {
    return absl::OkStatus();
  }
  not_followed_ = count;
  unfollowed_searched_ns_ = now_ns;
  return probe_->FindOlder(OtherNamespaces());
}

absl::Status NetworkMonitor::LookForStorm(uint64_t now_ns) {
  const bool watching = probe_->watches_states();
  const uint64_t elapsed_ns = now_ns - storm_looked_ns_;
  if (elapsed_ns < (watching ? kStormSeenNs : kStormOverNs)) return absl::OkStatus();
  const auto losses = probe_->Losses();
  const uint64_t count = losses[watching ? FW_NET_LOSS_NOT_FOLLOWED : FW_NET_LOSS_NOT_WATCHED];
  const double per_second =
      static_cast<double>(count - storm_count_) * 1e9 / static_cast<double>(elapsed_ns);
  const double limit = static_cast<double>(storm_per_second_) * (watching ? 1 : 0.5);
  const bool storm = per_second > limit;
  storm_looked_ns_ = now_ns;
  storm_count_ = count;
  if (storm != watching) return absl::OkStatus();
  storm_count_ = losses[watching ? FW_NET_LOSS_NOT_WATCHED : FW_NET_LOSS_NOT_FOLLOWED];
  RETURN_IF_ERROR(probe_->WatchStates(!watching));
  if (watching) {
    spdlog::warn(
        "{:.0f} connections a second begin beyond those that are followed: only the ends "
        "are counted until fewer than {} a second end",
        per_second, storm_per_second_ / 2);
    return absl::OkStatus();
  }
  spdlog::info("{:.0f} connections a second end: each is watched again", per_second);
  unfollowed_searched_ns_ = now_ns;
  return probe_->FindOlder(OtherNamespaces());
}

std::string NetworkMonitor::storm() const {
  base::MutexLock lock(mutex_);
  if (probe_->watches_states()) return "";
  return fmt::format("more than {} connections a second: only their ends are counted",
                     storm_per_second_ / 2);
}

absl::Status NetworkMonitor::ReportOnce(OnLiving on_living) {
  const uint64_t now_ns = clock_.MonotonicNs();
  if (table_.uncertain_owners() != 0 && applied_detail_ < 2 &&
      now_ns - owners_searched_ns_ >= kOwnersEveryNs) {
    owners_searched_ns_ = now_ns;
    RETURN_IF_ERROR(probe_->FindOwners());
  }
  if (applied_detail_ < 2) RETURN_IF_ERROR(FindUnfollowed(now_ns));
  RETURN_IF_ERROR(LookForStorm(now_ns));
  table_.BeginReport();
  RETURN_IF_ERROR(probe_->ReportLiving(
      [&](const fw_net_record& record)
          ABSL_NO_THREAD_SAFETY_ANALYSIS { on_living(record, table_.AddLiving(record)); }));
  table_.EndReport();
  // After the report: what it showed has ended later, if it has.
  probe_->DrainRecords([&](const fw_net_record& record)
                           ABSL_NO_THREAD_SAFETY_ANALYSIS { table_.AddRecord(record); });
  RETURN_IF_ERROR(
      probe_->TakeEdges([&](const fw_net_edge& edge, const fw_net_edge_counts& counts)
                            ABSL_NO_THREAD_SAFETY_ANALYSIS { table_.AddEdge(edge, counts); }));
  table_.SetOverflow(probe_->Overflow());
  metrics_->Update(table_, *probe_);
  return absl::OkStatus();
}

void NetworkMonitor::ReportLocked(OnLiving on_living) {
  const uint64_t start_ns = clock_.MonotonicNs();
  health_ = ReportOnce(on_living);
  if (!health_.ok()) spdlog::error("report of TCP connections: {}", base::Message(health_));
  metrics_->CountReport(clock_.MonotonicNs() - start_ns);
}

void NetworkMonitor::Report() {
  base::MutexLock lock(mutex_);
  ReportLocked([](const fw_net_record&, size_t) {});
}

std::string NetworkMonitor::DetailText(int level) {
  switch (level) {
    case 0:
      return "everything";
    case 1:
      return "sums only, no single events, fewer new connections followed";
    case 2:
      return "sums only, living connections every half minute, few new ones followed";
    default:
      return "sums only, no dropped packets, almost no new connections followed";
  }
}

void NetworkMonitor::SetDetail(int level) {
  detail_.store(level);
  const uint64_t one = 1;
  if (::write(wake_.get(), &one, sizeof(one)) < 0) spdlog::error("eventfd: {}", errno);
}

void NetworkMonitor::ApplyDetail() {
  const int level = detail_.load();
  if (level == applied_detail_) return;
  applied_detail_ = level;
  probe_->SetEventsPerSecond(level == 0 ? options_.probe.events_per_second : 0);
  static constexpr uint32_t kFollowOneIn[kDetailLevels] = {1, 4, 16, 100};
  probe_->SetFollowPerSecond(options_.probe.follow_per_second /
                             kFollowOneIn[std::clamp(level, 0, kDetailLevels - 1)]);
  const absl::Status status = probe_->SetDrops(options_.drops && level < 3);
  if (!status.ok()) spdlog::error("{}", base::Message(status));
}

transport::HttpResponse NetworkMonitor::Connections(const transport::HttpRequest& request) {
  const auto query = ParseConnectionsQuery(request);
  if (!query.ok()) return transport::ErrorResponse(400, base::Message(query.status()));
  base::MutexLock lock(mutex_);
  LivingConnections living(*query);
  ReportLocked([&](const fw_net_record& record, size_t process) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    living.Add(record, process, table_.processes()[process]);
  });
  if (!health_.ok()) return transport::ErrorResponse(500, base::Message(health_));
  return {.content_type = "application/json",
          .body = ConnectionsJson(*query, living, table_, *probe_, *metrics_, clock_)};
}

void NetworkMonitor::TakeRecent(const TakeEdge& take) {
  base::MutexLock lock(mutex_);
  table_.TakeRecent(
      [&](const NetworkEdge& edge, const NetworkTotals& recent)
          ABSL_NO_THREAD_SAFETY_ANALYSIS { take(edge, table_.processes()[edge.process], recent); });
}

std::vector<std::string> NetworkMonitor::missing() const {
  base::MutexLock lock(mutex_);
  return probe_->missing();
}

uint64_t NetworkMonitor::map_bytes() const {
  base::MutexLock lock(mutex_);
  return probe_->map_bytes();
}

uint64_t NetworkMonitor::heap_bytes() const {
  base::MutexLock lock(mutex_);
  return table_.heap_bytes();
}

uint64_t NetworkMonitor::bpf_run_ns() const {
  uint64_t total = 0;
  for (const BpfProgramStats& program : ProgramStats()) total += program.run_time_ns;
  return total;
}

uint64_t NetworkMonitor::kernel_events() const {
  base::MutexLock lock(mutex_);
  return probe_->Events();
}

std::vector<BpfProgramStats> NetworkMonitor::ProgramStats() const {
  base::MutexLock lock(mutex_);
  return probe_->ProgramStats();
}

absl::Status NetworkMonitor::health() const {
  base::MutexLock lock(mutex_);
  return health_;
}

}  // namespace firewatch::agent
