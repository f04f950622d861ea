// SPDX-License-Identifier: Apache-2.0
// The names that people gave to containers, from the state files that runtimes keep on the node. No
// runtime's socket is asked. Of those files only names are kept: environments and arguments, which
// they hold too, are skipped while parsing.
#pragma once

#include <string>
#include <string_view>

#include "agent/core/cgroup.h"
#include "base/hash.h"

namespace firewatch::agent {

struct ContainerName {
  std::string name;       // container name; "" when unknown
  std::string pod;        // Kubernetes pod; "" outside Kubernetes
  std::string pod_space;  // its namespace
};

// docker: config.v2.json. "" when the text is not what it should be.
ContainerName ParseDockerConfig(std::string_view json);
// containerd and CRI-O: the annotations of the OCI bundle's config.json.
ContainerName ParseOciBundle(std::string_view json);
// podman: the list in containers.json.
ContainerName ParsePodmanList(std::string_view json, std::string_view container_id);

// "web-7d9fd8c8b5-x2x4z" -> "web", "db-0" -> "db", "node-exporter-4k7zq" -> "node-exporter": what a
// Deployment, StatefulSet or DaemonSet appends to its own name. Anything else comes back unchanged.
std::string_view OwnerOfPod(std::string_view pod);

// One home thread. Each container is looked up once (found or not); at most kMaxCached are kept.
class ContainerNames {
 public:
  // `root` is put before every path: "" on a real machine.
  explicit ContainerNames(std::string root) : root_(std::move(root)) {}

  const ContainerName& Find(const CgroupFacts& facts);

 private:
  static constexpr size_t kMaxCached = 4096;

  ContainerName Read(const CgroupFacts& facts) const;

  const std::string root_;
  base::StringMap<ContainerName> by_id_;
};

}  // namespace firewatch::agent
