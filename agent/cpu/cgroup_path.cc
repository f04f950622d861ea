// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/cgroup_path.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>

#include <cerrno>
#include <fstream>
#include <sstream>

#include "base/status.h"

namespace firewatch::agent {

// A line: id parent major:minor root point options [optional fields] - type source options
absl::StatusOr<std::string> CgroupMountPoint(const std::string& mountinfo_path) {
  std::ifstream file(mountinfo_path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string skip, point, type;
    words >> skip >> skip >> skip >> skip >> point;
    while (words >> skip && skip != "-") {
    }
    if (words >> type && type == "cgroup2") return point;
  }
  return base::NotFound("no cgroup v2 hierarchy is mounted");
}

absl::StatusOr<base::UniqueFd> OpenCgroup(const std::string& path,
                                          const std::string& mountinfo_path) {
  std::string full = path;
  if (!path.starts_with('/')) {
    ASSIGN_OR_RETURN(full, CgroupMountPoint(mountinfo_path));
    full += "/" + path;
  }
  base::UniqueFd fd(::open(full.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return base::ErrnoStatus(errno, fmt::format("cgroup {}", full));
  struct statfs filesystem{};
  if (::fstatfs(fd.get(), &filesystem) != 0 || filesystem.f_type != CGROUP2_SUPER_MAGIC) {
    return base::InvalidArgument("cgroup {}: not a directory of the cgroup v2 hierarchy", full);
  }
  return fd;
}

}  // namespace firewatch::agent
