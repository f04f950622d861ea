// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/cgroup_path.h"

#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>

#include "base/status.h"

namespace firewatch::agent {
namespace {

constexpr uint32_t kMaxLevel = 31;  // bits of CgroupTarget::levels; MAX_CGROUP_LEVEL in filter.h
constexpr ino_t kInitialCgroupNamespace = 0xEFFFFFFB;  // PROC_CGROUP_INIT_INO, linux/proc_ns.h

struct Mount {
  std::string root;   // the directory of the hierarchy that is mounted
  std::string point;  // where
};

// A line: id parent major:minor root point options [optional fields] - type source options
std::optional<Mount> FindMount(const std::string& mountinfo_path) {
  std::ifstream file(mountinfo_path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string skip, type;
    Mount mount;
    words >> skip >> skip >> skip >> mount.root >> mount.point;
    while (words >> skip && skip != "-") {
    }
    if (words >> type && type == "cgroup2") return mount;
  }
  return std::nullopt;
}

uint32_t CountComponents(std::string_view path) {
  uint32_t count = 0;
  for (size_t i = 0; i < path.size(); ++i) {
    if (path[i] != '/' && (i == 0 || path[i - 1] == '/')) ++count;
  }
  return count;
}

bool InInitialCgroupNamespace() {
  struct stat info{};
  return ::stat("/proc/self/ns/cgroup", &info) == 0 && info.st_ino == kInitialCgroupNamespace;
}

}  // namespace

absl::StatusOr<std::string> CgroupMountPoint(const std::string& mountinfo_path) {
  const auto mount = FindMount(mountinfo_path);
  if (!mount) return base::NotFound("no cgroup v2 hierarchy is mounted");
  return mount->point;
}

absl::StatusOr<CgroupTarget> ResolveCgroup(const std::string& path,
                                           const std::string& mountinfo_path) {
  const auto mount = FindMount(mountinfo_path);
  if (!mount) {
    return base::FailedPrecondition("cgroup {}: no cgroup v2 hierarchy is mounted", path);
  }
  const std::string given = path.starts_with('/') ? path : mount->point + "/" + path;
  char resolved[PATH_MAX];
  if (::realpath(given.c_str(), resolved) == nullptr) {
    return base::ErrnoStatus(errno, fmt::format("cgroup {}", given));
  }
  const std::string_view real = resolved;
  struct statfs filesystem{};
  struct stat info{};
  if (::statfs(resolved, &filesystem) != 0 || ::stat(resolved, &info) != 0) {
    return base::ErrnoStatus(errno, fmt::format("cgroup {}", real));
  }
  const bool below = real == mount->point || real.starts_with(mount->point + "/");
  if (filesystem.f_type != CGROUP2_SUPER_MAGIC || !S_ISDIR(info.st_mode) || !below) {
    return base::InvalidArgument("cgroup {}: not a directory of the cgroup v2 hierarchy at {}",
                                 real, mount->point);
  }
  CgroupTarget target{.id = info.st_ino, .levels = UINT32_MAX};
  if (InInitialCgroupNamespace()) {
    const uint32_t level =
        CountComponents(mount->root) + CountComponents(real.substr(mount->point.size()));
    if (level > kMaxLevel) {
      return base::InvalidArgument("cgroup {}: more than {} levels deep", real, kMaxLevel);
    }
    target.levels = 1u << level;
  }
  return target;
}

}  // namespace firewatch::agent
