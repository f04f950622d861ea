// SPDX-License-Identifier: Apache-2.0
// What the kernel says about loaded BPF objects, and libbpf's log brought into ours.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/unique_fd.h"

struct bpf_object;

namespace firewatch::agent {

// Cost of one BPF program since it was loaded; times and counts are zero unless the kernel keeps
// them (kernel.bpf_stats_enabled or EnableBpfStats).
struct BpfProgramStats {
  std::string name;
  uint64_t run_time_ns = 0;
  uint64_t run_count = 0;
  uint64_t missed = 0;                 // runs that the kernel refused because of recursion
  uint32_t verified_instructions = 0;  // 0 before Linux 5.16
};

// The kernel counts run times for all BPF programs as long as this descriptor is open: nothing to
// put back. Adds 20 to 50 ns to each run.
absl::StatusOr<base::UniqueFd> EnableBpfStats();

// Of the programs of `object` that are loaded.
std::vector<BpfProgramStats> ReadProgramStats(const bpf_object* object);

// Run time of these programs together, as the kernel has counted it. Any thread.
uint64_t BpfRunNs(std::span<const int> program_fds);

// Bytes that the kernel charges for one map; 0 when its fdinfo does not tell.
uint64_t MapChargedBytes(int map_fd);

// The maps of `object` by name, each with what the kernel charges for it.
std::vector<std::pair<std::string, uint64_t>> ReadMapSizes(const bpf_object* object);

// Bytes that the kernel charges for the maps of `object` (memlock in their fdinfo).
uint64_t ReadMapBytes(const bpf_object* object);

// While one of these lives, what libbpf says on this thread goes to our log at debug level, and its
// warnings (with the verifier's log when a load fails) are kept, too.
class LibbpfLog {
 public:
  LibbpfLog();
  ~LibbpfLog();
  LibbpfLog(const LibbpfLog&) = delete;
  LibbpfLog& operator=(const LibbpfLog&) = delete;
  const std::string& warnings() const { return warnings_; }
  void Add(std::string text, bool is_warning);

 private:
  std::string warnings_;  // the last 64 KiB
};

}  // namespace firewatch::agent
