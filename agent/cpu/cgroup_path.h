// SPDX-License-Identifier: Apache-2.0
// From a cgroup's directory to what the kernel side compares: its 64-bit id and its level.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace firewatch::agent {

struct CgroupTarget {
  uint64_t id = 0;
  // Bit n: the cgroup stands n levels below the root of the hierarchy. All bits inside a cgroup
  // namespace, from where the distance to the real root cannot be seen.
  uint32_t levels = 0;
};

// Where the cgroup v2 hierarchy is mounted ("/sys/fs/cgroup", or "/sys/fs/cgroup/unified" beside
// v1). NotFound when it is not.
absl::StatusOr<std::string> CgroupMountPoint(const std::string& mountinfo_path);

// `path` is absolute, or relative to the mount. NotFound when there is no such cgroup;
// InvalidArgument when it is in no v2 hierarchy (v1 hierarchies have no ids) or too deep.
absl::StatusOr<CgroupTarget> ResolveCgroup(
    const std::string& path, const std::string& mountinfo_path = "/proc/self/mountinfo");

}  // namespace firewatch::agent
