// SPDX-License-Identifier: Apache-2.0
// The TCP probe in the kernel: loads bpf/network.bpf.c, attaches what this kernel has, and hands
// out what the programs have gathered. The only user of the skeleton. What it hands out are the
// kernel's numbers; connection_table.h makes sense of them.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/core/bpf_info.h"
#include "agent/network/kernel_names.h"
#include "bpf/include/network.h"

namespace firewatch::agent {

struct ProbeOptions {
  // Inode numbers of network namespaces (/proc/PID/ns/net), at most 8; empty: all. Sockets and
  // packets elsewhere are never looked at.
  std::vector<uint32_t> network_namespaces;
  uint32_t max_sockets = 131'072;      // 1,024 .. 4,194,304; memory is taken as they come
  uint32_t max_edges = 16'384;         // (process, peer, port) between two readings
  uint32_t ring_bytes = 512 * 1024;    // a power of two, a page or more
  uint32_t events_per_second = 1'000;  // per CPU; more are only summed
  // Connections that begin, per CPU, which are followed, in bursts of up to 20 s' worth; of more
  // only the ends are counted, with process and peer for as many again.
  uint32_t follow_per_second = 1'000;
  // Retransmits as they happen by a kprobe, where the kernel allows one, though it has the
  // tracepoint. Without the tracepoint that is done anyway.
  bool retransmits_by_kprobe = false;
};

struct RttHistogram {
  std::array<uint64_t, FW_NET_RTT_BUCKETS> buckets{};
  uint64_t sum_us = 0;
  uint64_t count = 0;
};

// One home thread.
class Probe {
 public:
  // The hooks run when this returns; sockets from before are not known yet (FindOlder).
  // InvalidArgument (options), PermissionDenied, FailedPrecondition (no BTF, no BPF).
  static absl::StatusOr<std::unique_ptr<Probe>> Open(const ProbeOptions& options);
  ~Probe();
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;

  // Readable when much waits in the ring, or a storm may blow (WatchStates); else nobody is woken,
  // so call the rest about once a second.
  int WaitFd() const;

  // Sockets that were open before the probe, or were not followed, with their processes: those with
  // a descriptor in all network namespaces, the rest in that of the calling thread and in those of
  // `namespace_files` (paths such as /proc/PID/ns/net; one that is gone is no error).
  absl::Status FindOlder(const std::vector<std::string>& namespace_files);
  // Asks all descriptors of all processes for sockets whose process is not certain.
  absl::Status FindOwners();

  // Every living socket, with its counts as they are now. From then on its end comes as a record
  // and no longer in the edges.
  absl::Status ReportLiving(absl::FunctionRef<void(const fw_net_record&)> callback);
  // What waits in the ring. Never blocks.
  size_t DrainRecords(absl::FunctionRef<void(const fw_net_record&)> callback);
  // The sums since the last call, each once. Waits for an RCU grace period (about 20 ms).
  absl::Status TakeEdges(
      absl::FunctionRef<void(const fw_net_edge&, const fw_net_edge_counts&)> callback);

  std::optional<fw_net_process> FindProcess(const fw_net_owner& owner) const;

  // Totals since Open.
  std::array<uint64_t, FW_NET_LOSS_COUNT> Losses() const;
  std::array<fw_net_edge_counts, FW_NET_ROLES> Overflow() const;  // by role
  RttHistogram Rtt() const;
  // Beginnings and ends of connections, and retransmits: in all.
  uint64_t Events() const;
  // Nothing where no kprobe counts them.
  std::optional<uint64_t> RetransmitCalls() const;

  // What this kernel does not give, each with the reason; empty where everything works.
  const std::vector<std::string>& missing() const;
  const KernelNames& names() const;

  // For the governor; any thread.
  void SetEventsPerSecond(uint32_t events);
  void SetFollowPerSecond(uint32_t connections);
  // Home thread. Off: the hook on dropped packets is taken away.
  absl::Status SetDrops(bool on);
  // Home thread. Off: the hook on changes of state is taken away, which the kernel calls ten times
  // per connection. Connections are counted at their end, new ones not followed, failures have no
  // errno; after it comes back FindOlder finds what lives.
  absl::Status WatchStates(bool on);
  bool watches_states() const;

  uint64_t map_bytes() const;  // now
  std::vector<BpfProgramStats> ProgramStats() const;

 private:
  struct Impl;
  explicit Probe(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace firewatch::agent
