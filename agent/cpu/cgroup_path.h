// SPDX-License-Identifier: Apache-2.0
// From what a user calls a cgroup to what the kernel side compares: its open directory.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "base/unique_fd.h"

namespace firewatch::agent {

// Where the cgroup v2 hierarchy is mounted ("/sys/fs/cgroup", or "/sys/fs/cgroup/unified" beside
// v1). NotFound when it is not.
absl::StatusOr<std::string> CgroupMountPoint(
    const std::string& mountinfo_path = "/proc/self/mountinfo");

// `path` is a directory of the v2 hierarchy, absolute or relative to its mount. NotFound when there
// is no such cgroup; InvalidArgument when it is not in a v2 hierarchy (BPF knows no other).
absl::StatusOr<base::UniqueFd> OpenCgroup(
    const std::string& path, const std::string& mountinfo_path = "/proc/self/mountinfo");

}  // namespace firewatch::agent
