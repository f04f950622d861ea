// SPDX-License-Identifier: Apache-2.0
#include "agent/core/cgroup.h"

#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "base/unique_fd.h"

namespace firewatch::agent {
namespace {

bool IsHex(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

bool TakePrefix(std::string_view* text, std::string_view prefix) {
  if (!text->starts_with(prefix)) return false;
  text->remove_prefix(prefix.size());
  return true;
}

bool TakeSuffix(std::string_view* text, std::string_view suffix) {
  if (!text->ends_with(suffix)) return false;
  text->remove_suffix(suffix.size());
  return true;
}

std::vector<std::string_view> Components(std::string_view path) {
  std::vector<std::string_view> components;
  while (!path.empty()) {
    const size_t slash = path.find('/');
    if (slash != 0) components.push_back(path.substr(0, slash));
    path.remove_prefix(slash == std::string_view::npos ? path.size() : slash + 1);
  }
  return components;
}

// systemd writes a byte that a unit name may not hold as \xNN.
std::string UnescapeUnit(std::string_view name) {
  const auto nibble = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
  };
  std::string out;
  for (size_t i = 0; i < name.size(); ++i) {
    if (name[i] == '\\' && i + 3 < name.size() && name[i + 1] == 'x' && nibble(name[i + 2]) >= 0 &&
        nibble(name[i + 3]) >= 0) {
      out.push_back(static_cast<char>(nibble(name[i + 2]) * 16 + nibble(name[i + 3])));
      i += 3;
    } else {
      out.push_back(name[i]);
    }
  }
  return out;
}

// The text between `id` and the start of its component, or the component's parent, names the
// runtime.
ContainerRuntime RuntimeOf(std::string_view hint) {
  struct Name {
    std::string_view text;
    ContainerRuntime runtime;
  };
  constexpr std::array<Name, 8> kNames = {{
      {"cri-containerd", ContainerRuntime::kContainerd},
      {"nerdctl", ContainerRuntime::kContainerd},
      {"k8s.io", ContainerRuntime::kContainerd},
      {"default", ContainerRuntime::kContainerd},
      {"docker", ContainerRuntime::kDocker},
      {"crio", ContainerRuntime::kCrio},
      {"libpod", ContainerRuntime::kPodman},
      {"buildkit", ContainerRuntime::kBuildkit},
  }};
  for (const Name& name : kNames) {
    if (hint.ends_with(name.text)) return name.runtime;
  }
  return ContainerRuntime::kUnknown;
}

// docker-ID.scope, cri-containerd-ID.scope, slice:cri-containerd:ID, and a bare ID whose parent is
// docker, k8s.io, podUID ….
bool TakeContainerId(std::string_view component, std::string_view parent, CgroupFacts* facts) {
  constexpr size_t kIdSize = 64;
  TakeSuffix(&component, ".scope");
  if (component.size() < kIdSize) return false;
  const std::string_view id = component.substr(component.size() - kIdSize);
  std::string_view hint = component.substr(0, component.size() - kIdSize);
  if (!IsHex(id)) return false;
  if (!hint.empty() && hint.back() != '-' && hint.back() != ':') return false;
  if (!hint.empty()) hint.remove_suffix(1);
  // The monitor beside the container belongs to the runtime, not to the container.
  if (hint.ends_with("conmon")) return false;
  facts->runtime = RuntimeOf(hint.empty() ? parent : hint);
  facts->container_id = id;
  return true;
}

// Runtimes whose ids are not 64 hex digits.
bool TakeNamedContainer(std::string_view component, std::string_view parent, CgroupFacts* facts) {
  const auto take = [&](ContainerRuntime runtime, std::string_view id) {
    if (id.empty()) return false;
    facts->runtime = runtime;
    facts->container_id = UnescapeUnit(id);
    return true;
  };
  if (parent == "buildkit") return take(ContainerRuntime::kBuildkit, component);
  if (parent == "lxc" || parent == "lxc.payload") return take(ContainerRuntime::kLxc, component);
  if (TakePrefix(&component, "lxc.payload.")) return take(ContainerRuntime::kLxc, component);
  if (parent == "machine.slice" && TakePrefix(&component, "machine-") &&
      TakeSuffix(&component, ".scope")) {
    return take(ContainerRuntime::kMachine, component);
  }
  return false;
}

// pod6b1c…  (cgroupfs)   or   kubepods-burstable-pod6b1c_….slice   (systemd)
std::string TakePodUid(std::string_view component) {
  constexpr size_t kUidSize = 36;
  // containerd with the systemd path in a cgroupfs tree: kubepods-pod….slice:cri-containerd:ID
  component = component.substr(0, component.find(':'));
  TakeSuffix(&component, ".slice");
  const size_t at = component.rfind("pod");
  if (at == std::string_view::npos) return "";
  if (at != 0 && !(component.starts_with("kubepods") && component[at - 1] == '-')) return "";
  std::string uid(component.substr(at + 3));
  std::replace(uid.begin(), uid.end(), '_', '-');
  const bool static_pod = uid.size() == 32 && IsHex(uid);  // a hash of the manifest
  return uid.size() == kUidSize || static_pod ? uid : "";
}

// Session managers hold what users start; the service itself says nothing about it.
std::string TakeUnit(std::string_view component) {
  if (!TakeSuffix(&component, ".service") || component.starts_with("user@")) return "";
  return UnescapeUnit(component);
}

struct Hierarchies {
  std::string_view unified;
  std::string_view systemd;
  std::string_view cpu;
  bool any_version1 = false;
};

bool HasController(std::string_view controllers, std::string_view wanted) {
  while (!controllers.empty()) {
    const size_t comma = controllers.find(',');
    if (controllers.substr(0, comma) == wanted) return true;
    controllers.remove_prefix(comma == std::string_view::npos ? controllers.size() : comma + 1);
  }
  return false;
}

// 0::/path   or   4:cpu,cpuacct:/path   or   1:name=systemd:/path; a path may hold ':'.
Hierarchies SplitHierarchies(std::string_view text) {
  Hierarchies found;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    const size_t first = line.find(':');
    if (first == std::string_view::npos) continue;
    const size_t second = line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const std::string_view path = WithoutDeleted(line.substr(second + 1));
    if (controllers.empty()) {
      found.unified = path;
      continue;
    }
    found.any_version1 = true;
    if (controllers == "name=systemd") found.systemd = path;
    if (HasController(controllers, "cpu")) found.cpu = path;
  }
  return found;
}

}  // namespace

CgroupFacts ParseCgroupPath(std::string_view path) {
  CgroupFacts facts;
  const std::vector<std::string_view> components = Components(path);
  for (size_t i = components.size(); i-- > 0;) {
    const std::string_view parent = i > 0 ? components[i - 1] : std::string_view();
    if (facts.pod_uid.empty()) facts.pod_uid = TakePodUid(components[i]);
    if (facts.unit.empty()) facts.unit = TakeUnit(components[i]);
    if (facts.runtime != ContainerRuntime::kNone) continue;
    if (!TakeContainerId(components[i], parent, &facts)) {
      TakeNamedContainer(components[i], parent, &facts);
    }
  }
  return facts;
}

CgroupChoice ChooseCgroupPath(std::string_view proc_cgroup) {
  const Hierarchies found = SplitHierarchies(proc_cgroup);
  CgroupChoice choice;
  choice.unified_only = !found.any_version1 && !found.unified.empty();
  const std::array<std::string_view, 3> candidates = {found.unified, found.systemd, found.cpu};
  for (const std::string_view path : candidates) {
    if (ParseCgroupPath(path).runtime != ContainerRuntime::kNone) {
      choice.path = path;
      return choice;
    }
  }
  for (const std::string_view path : candidates) {
    if (!path.empty() && path != "/") {
      choice.path = path;
      return choice;
    }
  }
  return choice;
}

std::shared_ptr<const std::string> CgroupPaths::Remember(uint64_t cgroup_id, std::string path) {
  auto shared = std::make_shared<const std::string>(std::move(path));
  if (cgroup_id == 0) return shared;
  // A machine with this many living cgroups starts the cache over; it only saves a read.
  if (by_id_.size() >= kMaxCached) by_id_.clear();
  by_id_[cgroup_id] = shared;
  return shared;
}

// A kernfs file handle is the node's 64-bit id (fs/kernfs/mount.c, FILEID_KERNFS, since 5.5), and
// that id is what BPF reports: no tree walk. Needs CAP_DAC_READ_SEARCH.
std::optional<std::string> CgroupPaths::PathOfId(uint64_t cgroup_id) const {
  constexpr int kFileIdKernfs = 0xfe;
  if (cgroup_id == 0) return std::nullopt;
  alignas(file_handle) std::array<char, sizeof(file_handle) + sizeof(cgroup_id)> storage{};
  auto* handle = reinterpret_cast<file_handle*>(storage.data());
  handle->handle_bytes = sizeof(cgroup_id);
  handle->handle_type = kFileIdKernfs;
  std::memcpy(storage.data() + sizeof(file_handle), &cgroup_id, sizeof(cgroup_id));
  for (const std::string& mount : {cgroup_root_, cgroup_root_ + "/unified"}) {
    const base::UniqueFd root(::open(mount.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!root.valid()) continue;
    const base::UniqueFd node(::open_by_handle_at(root.get(), handle, O_PATH | O_CLOEXEC));
    if (!node.valid()) continue;
    char target[PATH_MAX];
    const std::string link = "/proc/self/fd/" + std::to_string(node.get());
    const ssize_t size = ::readlink(link.c_str(), target, sizeof(target));
    if (size < 0) continue;
    std::string_view path = WithoutDeleted({target, static_cast<size_t>(size)});
    if (TakePrefix(&path, mount)) return path.empty() ? "/" : std::string(path);
  }
  return std::nullopt;
}

std::shared_ptr<const std::string> CgroupPaths::Find(std::optional<Pid> pid, uint64_t cgroup_id) {
  if (const auto cached = by_id_.find(cgroup_id); cached != by_id_.end()) return cached->second;
  if (pid) {
    if (const auto text = reader_.ReadCgroup(*pid); text.ok()) {
      CgroupChoice choice = ChooseCgroupPath(*text);
      // Beside version 1 hierarchies, processes of one version 2 cgroup may live in different
      // containers: the id does not stand for the path then.
      return Remember(choice.unified_only ? cgroup_id : 0, std::move(choice.path));
    }
  }
  std::optional<std::string> path = PathOfId(cgroup_id);
  if (!path || *path == "/") return nullptr;
  return std::make_shared<const std::string>(*std::move(path));
}

}  // namespace firewatch::agent
