// SPDX-License-Identifier: Apache-2.0
// The loaded program and its maps for one interface. Maps are pinned in a directory of a bpffs: who
// opens the directory again has the same rules, counters and buckets.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/enforce/image_map.h"
#include "bpf/include/firewall.h"

namespace firewatch::agent {

using FirewallCounts = std::array<uint64_t, FW_FIREWALL_COUNT>;

class FirewallProgram {
 public:
  // Loads the programs; maps that are pinned in `directory` are used again, others are made and
  // pinned. "": nothing is pinned (tests, benchmarks). FailedPrecondition when what is pinned is of
  // another version. `benchmarks`: loads those programs, too, which need Linux 6.2.
  static absl::StatusOr<std::unique_ptr<FirewallProgram>> Load(const std::string& directory,
                                                               bool benchmarks = false);
  virtual ~FirewallProgram() = default;

  virtual int xdp_fd() const = 0;
  virtual int tc_fd() const = 0;
  virtual int bench_judge_fd() const = 0;
  virtual int bench_parse_fd() const = 0;
  virtual int bench_sources_fd() const = 0;
  virtual int events_fd() const = 0;
  virtual int generations_fd() const = 0;

  // Generation 0 judges, 1 is the one before. Returns when no packet uses the old any more.
  virtual absl::Status Put(uint32_t key, ImageMap* image) = 0;
  // The same for generation 0, but returns as soon as packets that come from now on meet the new:
  // those under way may use the old until the swap of the number that is returned is done
  // (swap_queue.h).
  virtual absl::StatusOr<uint64_t> PutSoon(ImageMap* image) = 0;
  virtual uint64_t SwapsDone() const = 0;
  virtual void WaitForSwaps() = 0;
  virtual absl::Status Remove(uint32_t key) = 0;
  // As ImageMap::Find.
  virtual absl::StatusOr<ImageMap> Find(uint32_t key) const = 0;

  virtual fw_rule_counts RuleCounts(uint32_t slot) const = 0;  // summed over CPUs
  virtual absl::Status ClearRuleCounts(uint32_t slot) = 0;
  virtual FirewallCounts Counts() const = 0;

  virtual uint64_t map_bytes() const = 0;    // without images
  virtual uint64_t run_time_ns() const = 0;  // while the kernel keeps statistics
  // {program, instructions that the verifier has followed}, of those that are loaded.
  virtual const std::vector<std::pair<std::string, uint32_t>>& verified_instructions() const = 0;
};

// A bpffs at /sys/fs/bpf, mounted when it is not there; makes `directory` (below it, or on another
// bpffs).
absl::Status MakePinDirectory(const std::string& directory);

}  // namespace firewatch::agent
