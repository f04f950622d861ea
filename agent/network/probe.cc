// SPDX-License-Identifier: Apache-2.0
#include "agent/network/probe.h"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <span>
#include <thread>
#include <utility>

#include "agent/core/bpf_handles.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "bpf/network.skel.h"

namespace firewatch::agent {
namespace {

constexpr size_t kMaxNamespaces = 8;                // MAX_WANTED_NETNS in bpf/network_settings.h
constexpr ino_t kInitialPidNamespace = 0xEFFFFFFC;  // PROC_PID_INIT_INO, linux/proc_ns.h
constexpr size_t kRecordsPerRead = 256;
constexpr uint32_t kEdgesPerBatch = 1024;

uint32_t PidNamespace() {
  struct stat info{};
  if (::stat("/proc/self/ns/pid", &info) != 0 || info.st_ino == kInitialPidNamespace) return 0;
  return static_cast<uint32_t>(info.st_ino);
}

absl::Status CheckOptions(const ProbeOptions& options) {
  if (options.network_namespaces.size() > kMaxNamespaces) {
    return base::InvalidArgument("{} network namespaces: at most {} can be filtered for",
                                 options.network_namespaces.size(), kMaxNamespaces);
  }
  if (options.max_sockets < 1'024 || options.max_sockets > 4'194'304) {
    return base::InvalidArgument("{} sockets: must be 1024 to 4194304", options.max_sockets);
  }
  if (options.max_edges < 64 || options.max_edges > 1'048'576) {
    return base::InvalidArgument("{} edges: must be 64 to 1048576", options.max_edges);
  }
  if (!std::has_single_bit(options.ring_bytes) ||
      options.ring_bytes < static_cast<uint32_t>(::getpagesize())) {
    return base::InvalidArgument("ring of {} bytes: must be a power of two and a page or more",
                                 options.ring_bytes);
  }
  return absl::OkStatus();
}

absl::Status LoadError(int error, const LibbpfLog& log) {
  const absl::Status status = base::ErrnoStatus(error, "load the TCP probe");
  if (error == EPERM) {
    return base::PermissionDenied("{} (needs root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN)",
                                  base::Message(status));
  }
  spdlog::warn("TCP probe refused by the kernel:\n{}", log.warnings());
  return status;
}

// Reads an iterator to its end; `take` gets whole multiples of `unit` bytes.
absl::Status ReadIterator(bpf_link* link, size_t unit,
                          absl::FunctionRef<void(std::span<const std::byte>)> take) {
  const base::UniqueFd file(::bpf_iter_create(bpf_link__fd(link)));
  if (!file.valid()) return base::ErrnoStatus(errno, "open a BPF iterator");
  std::vector<std::byte> buffer(unit * kRecordsPerRead);
  size_t held = 0;
  while (true) {
    const ssize_t got = ::read(file.get(), buffer.data() + held, buffer.size() - held);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < 0) return base::ErrnoStatus(errno, "read a BPF iterator");
    if (got == 0) return absl::OkStatus();
    held += static_cast<size_t>(got);
    const size_t whole = held / unit * unit;
    take(std::span(buffer.data(), whole));
    std::memmove(buffer.data(), buffer.data() + whole, held - whole);
    held -= whole;
  }
}

template <typename Value>
std::vector<Value> ReadPerCpu(const bpf_map* map, uint32_t key) {
  const int cpus = std::max(libbpf_num_possible_cpus(), 1);
  std::vector<Value> values(static_cast<size_t>(cpus));
  static_assert(sizeof(Value) % 8 == 0, "the kernel rounds up");
  if (bpf_map__lookup_elem(map, &key, sizeof(key), values.data(), values.size() * sizeof(Value),
                           0) != 0) {
    values.clear();
  }
  return values;
}

void Add(fw_net_edge_counts& to, const fw_net_edge_counts& from) {
  to.bytes_sent += from.bytes_sent;
  to.bytes_received += from.bytes_received;
  to.segments_sent += from.segments_sent;
  to.segments_received += from.segments_received;
  to.duration_us += from.duration_us;
  to.rtt_us += from.rtt_us;
  to.rtt_count += from.rtt_count;
  to.connections += from.connections;
  to.failed += from.failed;
  to.resets_sent += from.resets_sent;
  to.resets_received += from.resets_received;
  to.retransmits += from.retransmits;
  to.handshake_retransmits += from.handshake_retransmits;
}

// Before 6.1 a map without preallocation takes memory from the allocator that the traced code may
// be in the middle of; the kernel warns and loads it all the same, so this cannot be found by
// trying.
bool TracingMayNotAllocate() {
  utsname name{};
  int major = 0;
  int minor = 0;
  if (::uname(&name) != 0 || std::sscanf(name.release, "%d.%d", &major, &minor) != 2) return false;
  return std::pair(major, minor) < std::pair(6, 1);
}
constexpr uint32_t kPreallocatedEntries = 8192;

// Whether a program on the return of this function of the kernel would be loaded: "" or why not.
std::string WhyNotOnReturn(const char* function) {
  const int id = libbpf_find_vmlinux_btf_id(function, BPF_TRACE_FEXIT);
  if (id <= 0) return "this kernel has no such function";
  const bpf_insn nothing[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K},
                              {.code = BPF_JMP | BPF_EXIT}};  // return 0
  LIBBPF_OPTS(bpf_prog_load_opts, options, .expected_attach_type = BPF_TRACE_FEXIT,
              .attach_btf_id = static_cast<uint32_t>(id));
  const base::UniqueFd program(::bpf_prog_load(BPF_PROG_TYPE_TRACING, nullptr, "GPL", nothing,
                                               std::size(nothing), &options));
  return program.valid() ? "" : fmt::format("refused: {}", std::strerror(errno));
}

}  // namespace

struct Probe::Impl {
  absl::Status Load(const ProbeOptions& options);
  void SelectTracedFunctions(bool by_kprobe);
  absl::Status Attach();
  void AttachTracedFunctions();
  absl::Status AttachIterators();
  absl::Status RunTcpIterator();
  static int OnRecord(void* context, void* data, size_t size);

  std::unique_ptr<KernelNames> names;
  BpfSkeleton<network_bpf> skeleton;
  std::vector<BpfLink> links;
  BpfLink states;
  BpfLink drops;
  BpfLink owners_iterator;
  BpfLink tcp_iterator;
  BpfLink living_iterator;
  BpfRingBuffer ring;
  std::vector<std::string> missing;
  absl::FunctionRef<void(const fw_net_record&)>* callback = nullptr;  // during DrainRecords
  size_t drained = 0;
  bool kprobe = false;  // sees retransmits
};

// Programs that are not loaded unless asked for: what the kernel may refuse by itself.
void Probe::Impl::SelectTracedFunctions(bool by_kprobe) {
  if (by_kprobe || !names->TracepointArguments("tcp_retransmit_skb")) {
    bpf_program__set_autoload(skeleton->progs.on_retransmit_call, true);
    bpf_program__set_autoload(skeleton->progs.on_retransmit_inner, true);
  }
  for (const auto& [program, function] :
       {std::pair(skeleton->progs.on_connect_ipv4, "tcp_v4_connect"),
        std::pair(skeleton->progs.on_connect_ipv6, "tcp_v6_connect")}) {
    const std::string why = WhyNotOnReturn(function);
    bpf_program__set_autoload(program, why.empty());
    if (why.empty()) continue;
    missing.push_back(fmt::format(
        "connects that fail before their first SYN (no route): a program on the return of {}: {}",
        function, why));
  }
}

absl::Status Probe::Impl::Load(const ProbeOptions& options) {
  const LibbpfLog log;
  skeleton.reset(network_bpf::open());
  if (!skeleton) return LoadError(errno, log);
  auto* const constants = skeleton->rodata;
  constants->pid_namespace = PidNamespace();
  constants->wanted_netns_count = static_cast<uint32_t>(options.network_namespaces.size());
  // The generated type is an array of const volatile; it is writable until the load.
  std::copy(options.network_namespaces.begin(), options.network_namespaces.end(),
            constants->wanted_netns);
  const auto drop_arguments = names->TracepointArguments("kfree_skb");
  const auto reset_arguments = names->TracepointArguments("tcp_send_reset");
  constants->kfree_skb_arguments = drop_arguments.value_or(2);
  constants->send_reset_arguments = reset_arguments.value_or(2);
  constants->reason_not_specified = names->FindDropReason("NOT_SPECIFIED").value_or(0);
  constants->reason_queue_purge = names->FindDropReason("QUEUE_PURGE").value_or(~0u);
  if (!drop_arguments) {
    missing.emplace_back("drops: this kernel has no tracepoint skb/kfree_skb");
  } else if (*drop_arguments < 3) {
    missing.emplace_back("reasons of drops: before Linux 5.17 only where they happened is known");
  } else if (*drop_arguments < 4) {
    missing.emplace_back(
        "processes of received packets that are dropped: the kernel tells the socket since 6.11");
  }
  if (reset_arguments.value_or(0) < 3) {
    missing.emplace_back("reasons of sent resets: the kernel tells them since 6.10");
  }
  struct Hook {
    bpf_program* program;
    const char* tracepoint;
    const char* what;
  };
  for (const Hook& hook :
       {Hook{skeleton->progs.on_retransmit, "tcp_retransmit_skb", "retransmits as they happen"},
        Hook{skeleton->progs.on_retransmit_synack, "tcp_retransmit_synack",
             "retransmits of SYN-ACKs"},
        Hook{skeleton->progs.on_receive_reset, "tcp_receive_reset", "received resets"},
        Hook{skeleton->progs.on_send_reset, "tcp_send_reset", "sent resets"},
        Hook{skeleton->progs.on_drop, "kfree_skb", "drops"}}) {
    if (names->TracepointArguments(hook.tracepoint)) continue;
    bpf_program__set_autoload(hook.program, false);
    missing.push_back(
        fmt::format("{}: this kernel has no tracepoint {}", hook.what, hook.tracepoint));
  }
  SelectTracedFunctions(options.retransmits_by_kprobe);
  bpf_map__set_max_entries(skeleton->maps.sockets, options.max_sockets);
  bpf_map__set_max_entries(skeleton->maps.edges_0, options.max_edges);
  bpf_map__set_max_entries(skeleton->maps.edges_1, options.max_edges);
  bpf_map__set_max_entries(skeleton->maps.records, options.ring_bytes);
  if (TracingMayNotAllocate()) {
    for (bpf_map* map : {skeleton->maps.sockets, skeleton->maps.listeners, skeleton->maps.edges_0,
                         skeleton->maps.edges_1}) {
      bpf_map__set_map_flags(map, 0);
      bpf_map__set_max_entries(map, std::min(bpf_map__max_entries(map), kPreallocatedEntries));
    }
    missing.push_back(fmt::format(
        "more than {} connections at once: before Linux 6.1 their memory is taken at the start",
        kPreallocatedEntries));
  }
  skeleton->data->events_per_second = options.events_per_second;
  skeleton->data->follow_per_second = options.follow_per_second;
  skeleton->data->wake_backlog_bytes = options.ring_bytes / 4;
  skeleton->data->detail_backlog_bytes = options.ring_bytes / 2;
  skeleton->data->edges_wake_at = bpf_map__max_entries(skeleton->maps.edges_0) / 2;
  if (const int error = network_bpf::load(skeleton.get()); error != 0) {
    return LoadError(-error, log);
  }
  return absl::OkStatus();
}

absl::Status Probe::Impl::Attach() {
  for (bpf_program* program : {skeleton->progs.on_destroy, skeleton->progs.on_retransmit,
                               skeleton->progs.on_retransmit_synack,
                               skeleton->progs.on_receive_reset, skeleton->progs.on_send_reset}) {
    if (!bpf_program__autoload(program)) continue;
    links.emplace_back(bpf_program__attach(program));
    if (!links.back()) {
      return base::ErrnoStatus(errno, fmt::format("attach {}", bpf_program__name(program)));
    }
  }
  return absl::OkStatus();
}

// A load may be allowed and the rest not: one signal less.
void Probe::Impl::AttachTracedFunctions() {
  const LibbpfLog log;
  for (bpf_program* program :
       {skeleton->progs.on_retransmit_call, skeleton->progs.on_retransmit_inner,
        skeleton->progs.on_connect_ipv4, skeleton->progs.on_connect_ipv6}) {
    if (!bpf_program__autoload(program)) continue;
    BpfLink link(bpf_program__attach(program));
    if (link) {
      links.push_back(std::move(link));
      kprobe |= program == skeleton->progs.on_retransmit_call;
      continue;
    }
    missing.push_back(
        fmt::format("{}: {}", bpf_program__section_name(program), std::strerror(errno)));
  }
}

absl::Status Probe::Impl::AttachIterators() {
  owners_iterator.reset(bpf_program__attach_iter(skeleton->progs.find_owners, nullptr));
  if (!owners_iterator) return base::ErrnoStatus(errno, "attach the iterator over descriptors");
  tcp_iterator.reset(bpf_program__attach_iter(skeleton->progs.find_sockets, nullptr));
  if (!tcp_iterator) return base::ErrnoStatus(errno, "attach the iterator over sockets");
  bpf_iter_link_info info{};
  info.map.map_fd = static_cast<uint32_t>(bpf_map__fd(skeleton->maps.sockets));
  LIBBPF_OPTS(bpf_iter_attach_opts, map_options, .link_info = &info, .link_info_len = sizeof(info));
  living_iterator.reset(bpf_program__attach_iter(skeleton->progs.report_sockets, &map_options));
  if (!living_iterator) return base::ErrnoStatus(errno, "attach the iterator over the map");
  return absl::OkStatus();
}

int Probe::Impl::OnRecord(void* context, void* data, size_t size) {
  auto* self = static_cast<Impl*>(context);
  if (size < sizeof(fw_net_record)) return 0;
  fw_net_record record;
  std::memcpy(&record, data, sizeof(record));
  ++self->drained;
  (*self->callback)(record);
  return 0;
}

Probe::Probe(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Probe::~Probe() = default;

absl::StatusOr<std::unique_ptr<Probe>> Probe::Open(const ProbeOptions& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  auto impl = std::make_unique<Impl>();
  ASSIGN_OR_RETURN(impl->names, KernelNames::Load());
  RETURN_IF_ERROR(impl->Load(options));
  impl->ring.reset(ring_buffer__new(bpf_map__fd(impl->skeleton->maps.records), Impl::OnRecord,
                                    impl.get(), nullptr));
  if (!impl->ring) return base::ErrnoStatus(errno, "map the ring of the TCP probe");
  RETURN_IF_ERROR(impl->Attach());
  impl->AttachTracedFunctions();
  RETURN_IF_ERROR(impl->AttachIterators());
  std::unique_ptr<Probe> probe(new Probe(std::move(impl)));
  RETURN_IF_ERROR(probe->WatchStates(true));
  RETURN_IF_ERROR(probe->SetDrops(true));
  return probe;
}

int Probe::WaitFd() const { return ring_buffer__epoll_fd(impl_->ring.get()); }

absl::Status Probe::Impl::RunTcpIterator() {
  return ReadIterator(tcp_iterator.get(), 1, [](std::span<const std::byte>) {});
}

absl::Status Probe::FindOlder(const std::vector<std::string>& namespace_files) {
  const auto nothing = [](std::span<const std::byte>) {};
  absl::Status first_error = absl::OkStatus();
  const auto keep = [&first_error](absl::Status status) {
    if (first_error.ok()) first_error = std::move(status);
  };
  // Listeners first: by them the others are told to have connected or to have been accepted.
  for (const uint32_t step : {1u, 2u}) {
    impl_->skeleton->bss->backfill_step = step;
    keep(ReadIterator(impl_->owners_iterator.get(), 1, nothing));
    keep(impl_->RunTcpIterator());
    if (namespace_files.empty()) continue;
    // A thread of its own: entering a namespace is for good.
    std::thread([&] {
      for (const std::string& path : namespace_files) {
        const base::UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        if (!file.valid() || ::setns(file.get(), CLONE_NEWNET) != 0) continue;
        keep(impl_->RunTcpIterator());
      }
    }).join();
  }
  impl_->skeleton->bss->backfill_step = 0;
  return first_error;
}

absl::Status Probe::FindOwners() {
  return ReadIterator(impl_->owners_iterator.get(), 1, [](std::span<const std::byte>) {});
}

absl::Status Probe::ReportLiving(absl::FunctionRef<void(const fw_net_record&)> callback) {
  return ReadIterator(impl_->living_iterator.get(), sizeof(fw_net_record),
                      [&](std::span<const std::byte> bytes) {
                        for (; bytes.size() >= sizeof(fw_net_record);
                             bytes = bytes.subspan(sizeof(fw_net_record))) {
                          fw_net_record record;
                          std::memcpy(&record, bytes.data(), sizeof(record));
                          callback(record);
                        }
                      });
}

size_t Probe::DrainRecords(absl::FunctionRef<void(const fw_net_record&)> callback) {
  impl_->callback = &callback;
  impl_->drained = 0;
  if (const int result = ring_buffer__consume(impl_->ring.get()); result < 0) {
    spdlog::error("read the ring of the TCP probe: {}",
                  base::Message(base::ErrnoStatus(-result, "consume")));
  }
  impl_->callback = nullptr;
  return impl_->drained;
}

absl::Status Probe::TakeEdges(
    absl::FunctionRef<void(const fw_net_edge&, const fw_net_edge_counts&)> callback) {
  auto* const bss = impl_->skeleton->bss;
  const uint32_t old = bss->active_edges;
  std::atomic_ref<uint32_t>(bss->active_edges).store(1 - old);
  std::atomic_ref<uint32_t>(bss->edges_used).store(0);
  // Waits until every program that may still have the old map has ended (synchronize_rcu).
  if (::syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) != 0) ::usleep(50'000);
  const bpf_map* const map =
      old == 0 ? impl_->skeleton->maps.edges_0 : impl_->skeleton->maps.edges_1;
  const int fd = bpf_map__fd(map);
  std::vector<fw_net_edge> keys(kEdgesPerBatch);
  std::vector<fw_net_edge_counts> values(kEdgesPerBatch);
  uint64_t position = 0;  // opaque to us; 4 bytes of it are used
  bool first = true;
  while (true) {
    uint32_t count = static_cast<uint32_t>(keys.size());
    const int result = ::bpf_map_lookup_and_delete_batch(
        fd, first ? nullptr : &position, &position, keys.data(), values.data(), &count, nullptr);
    const int error = errno;
    if (result != 0 && error == ENOSPC && keys.size() < 1'048'576) {  // a bucket does not fit
      keys.resize(keys.size() * 2);
      values.resize(keys.size());
      continue;
    }
    if (result != 0 && error != ENOENT) return base::ErrnoStatus(error, "read the edges");
    for (uint32_t i = 0; i < count; ++i) callback(keys[i], values[i]);
    if (result != 0) return absl::OkStatus();
    first = false;
  }
}

std::optional<fw_net_process> Probe::FindProcess(const fw_net_owner& owner) const {
  fw_net_process process{};
  if (bpf_map__lookup_elem(impl_->skeleton->maps.processes, &owner, sizeof(owner), &process,
                           sizeof(process), 0) != 0) {
    return std::nullopt;
  }
  process.comm[sizeof(process.comm) - 1] = '\0';
  process.exe_name[sizeof(process.exe_name) - 1] = '\0';
  return process;
}

std::array<uint64_t, FW_NET_LOSS_COUNT> Probe::Losses() const {
  std::array<uint64_t, FW_NET_LOSS_COUNT> total{};
  for (const auto& counts :
       ReadPerCpu<std::array<uint64_t, FW_NET_LOSS_COUNT>>(impl_->skeleton->maps.net_losses, 0)) {
    for (size_t i = 0; i < total.size(); ++i) total[i] += counts[i];
  }
  return total;
}

std::array<fw_net_edge_counts, FW_NET_ROLES> Probe::Overflow() const {
  std::array<fw_net_edge_counts, FW_NET_ROLES> total{};
  for (uint32_t role = 0; role < FW_NET_ROLES; ++role) {
    for (const auto& counts :
         ReadPerCpu<fw_net_edge_counts>(impl_->skeleton->maps.edge_overflow, role)) {
      Add(total[role], counts);
    }
  }
  return total;
}

RttHistogram Probe::Rtt() const {
  RttHistogram total;
  for (const auto& part : ReadPerCpu<RttHistogram>(impl_->skeleton->maps.rtt, 0)) {
    for (size_t i = 0; i < total.buckets.size(); ++i) total.buckets[i] += part.buckets[i];
    total.sum_us += part.sum_us;
    total.count += part.count;
  }
  return total;
}

uint64_t Probe::Events() const {
  struct Allowance {  // struct allowance of bpf/network.bpf.c
    uint64_t since_ns;
    uint32_t used;
    uint32_t padding;
    uint64_t asked;
  };
  uint64_t total = 0;
  for (const auto& part : ReadPerCpu<Allowance>(impl_->skeleton->maps.allowances, 0)) {
    total += part.asked;
  }
  return total;
}

std::optional<uint64_t> Probe::RetransmitCalls() const {
  if (!impl_->kprobe) return std::nullopt;
  return std::atomic_ref<uint64_t>(impl_->skeleton->bss->retransmit_calls).load();
}

const std::vector<std::string>& Probe::missing() const { return impl_->missing; }
const KernelNames& Probe::names() const { return *impl_->names; }

void Probe::SetEventsPerSecond(uint32_t events) {
  std::atomic_ref<uint32_t>(impl_->skeleton->data->events_per_second).store(events);
}

void Probe::SetFollowPerSecond(uint32_t connections) {
  std::atomic_ref<uint32_t>(impl_->skeleton->data->follow_per_second).store(connections);
}

absl::Status Probe::SetDrops(bool on) {
  if (!on || !bpf_program__autoload(impl_->skeleton->progs.on_drop)) {
    impl_->drops.reset();
    return absl::OkStatus();
  }
  if (impl_->drops) return absl::OkStatus();
  impl_->drops.reset(bpf_program__attach(impl_->skeleton->progs.on_drop));
  if (!impl_->drops) return base::ErrnoStatus(errno, "attach on_drop");
  return absl::OkStatus();
}

absl::Status Probe::WatchStates(bool on) {
  std::atomic_ref<uint32_t> watched(impl_->skeleton->data->states_are_watched);
  if (!on) {
    watched.store(0);
    impl_->states.reset();
    return absl::OkStatus();
  }
  if (!impl_->states) impl_->states.reset(bpf_program__attach(impl_->skeleton->progs.on_state));
  if (!impl_->states) return base::ErrnoStatus(errno, "attach on_state");
  watched.store(1);
  return absl::OkStatus();
}

bool Probe::watches_states() const { return impl_->states != nullptr; }

uint64_t Probe::map_bytes() const { return ReadMapBytes(impl_->skeleton->obj); }
std::vector<BpfProgramStats> Probe::ProgramStats() const {
  return ReadProgramStats(impl_->skeleton->obj);
}

}  // namespace firewatch::agent
