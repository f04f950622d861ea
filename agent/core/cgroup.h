// SPDX-License-Identifier: Apache-2.0
// What a cgroup path says about the process in it: which container, which pod, which systemd unit.
// Paths are text that runtimes compose by convention; the forms stand in cgroup_test.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "agent/core/proc_reader.h"
#include "base/hash.h"

namespace firewatch::agent {

enum class ContainerRuntime : uint8_t {
  kNone,
  kUnknown,  // a container id without a runtime's name (cgroupfs driver below kubepods)
  kDocker,
  kContainerd,
  kCrio,
  kPodman,
  kBuildkit,
  kLxc,
  kMachine,  // systemd-nspawn
};

struct CgroupFacts {
  ContainerRuntime runtime = ContainerRuntime::kNone;
  std::string container_id;  // the innermost one; a name for lxc and systemd-nspawn
  std::string pod_uid;       // with dashes, also when the path has underscores
  std::string unit;          // innermost system or user service without ".service", unescaped
};

CgroupFacts ParseCgroupPath(std::string_view path);

struct CgroupChoice {
  std::string path = "/";
  bool unified_only = false;  // the machine has no version 1 hierarchy that holds this process
};

// Picks the path that tells most from /proc/PID/cgroup: of the version 2 line, then name=systemd,
// then cpu, the first that names a container; else the first that is not the root.
CgroupChoice ChooseCgroupPath(std::string_view proc_cgroup);

// From a process or a cgroup id to a path. Where only version 2 is in use, an id (bpf's
// get_current_cgroup_id, the inode in cgroupfs) is looked up once and no process is read again.
// One home thread; at most kMaxCached paths are kept.
class CgroupPaths {
 public:
  CgroupPaths(const ProcReader* reader, std::string cgroup_root)
      : reader_(*reader), cgroup_root_(std::move(cgroup_root)) {}

  // nullptr when neither /proc nor the id (0: unknown) gives an answer. `pid` empty: do not look
  // into /proc, the process is gone.
  std::shared_ptr<const std::string> Find(std::optional<Pid> pid, uint64_t cgroup_id);

 private:
  static constexpr size_t kMaxCached = 4096;

  std::optional<std::string> PathOfId(uint64_t cgroup_id) const;
  std::shared_ptr<const std::string> Remember(uint64_t cgroup_id, std::string path);

  const ProcReader& reader_;
  const std::string cgroup_root_;
  absl::flat_hash_map<uint64_t, std::shared_ptr<const std::string>> by_id_;
};

}  // namespace firewatch::agent
