// SPDX-License-Identifier: Apache-2.0
#include "agent/core/container_names.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "base/unique_fd.h"

namespace firewatch::agent {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxStateFileBytes = size_t{4} << 20;

// Keeps only members named in `wanted` (at any depth) and drops everything else as it is read, so
// that neither environments nor arguments are ever held.
template <size_t N>
Json ParseOnly(std::string_view text, const std::string_view (&wanted)[N]) {
  const auto keep = [&wanted](int /*depth*/, Json::parse_event_t event, Json& parsed) {
    if (event != Json::parse_event_t::key) return true;
    const auto& key = parsed.get_ref<const std::string&>();
    for (const std::string_view name : wanted) {
      if (key == name) return true;
    }
    return false;
  };
  return Json::parse(text, keep, /*allow_exceptions=*/false);
}

std::string TextAt(const Json& object, const char* key) {
  if (!object.is_object()) return "";
  const auto at = object.find(key);
  return at != object.end() && at->is_string() ? at->get<std::string>() : "";
}

std::string FirstTextAt(const Json& object, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    if (std::string text = TextAt(object, key); !text.empty()) return text;
  }
  return "";
}

std::optional<std::string> ReadStateFile(const std::string& path) {
  const base::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd.valid()) return std::nullopt;
  std::string text;
  size_t used = 0;
  while (used < kMaxStateFileBytes) {
    if (used == text.size()) text.resize(used + (size_t{64} << 10));
    const ssize_t got = ::read(fd.get(), text.data() + used, text.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return std::nullopt;
    if (got == 0) break;
    used += static_cast<size_t>(got);
  }
  text.resize(used);
  return text;
}

// The alphabet of Kubernetes' generated suffixes (no vowels, no 0, 1, 3).
bool IsGeneratedSuffix(std::string_view text) {
  return !text.empty() &&
         text.find_first_not_of("bcdfghjklmnpqrstvwxz2456789") == std::string_view::npos;
}

bool IsNumber(std::string_view text) {
  return !text.empty() && text.size() <= 5 &&
         text.find_first_not_of("0123456789") == std::string_view::npos;
}

}  // namespace

ContainerName ParseDockerConfig(std::string_view json) {
  constexpr std::string_view kWanted[] = {"Name"};
  ContainerName found;
  found.name = TextAt(ParseOnly(json, kWanted), "Name");
  if (found.name.starts_with('/')) found.name.erase(0, 1);
  return found;
}

ContainerName ParseOciBundle(std::string_view json) {
  constexpr std::string_view kWanted[] = {
      "annotations",
      "io.kubernetes.cri.container-name",
      "io.kubernetes.cri.sandbox-name",
      "io.kubernetes.cri.sandbox-namespace",
      "io.kubernetes.container.name",
      "io.kubernetes.pod.name",
      "io.kubernetes.pod.namespace",
      "nerdctl/name",
  };
  const Json parsed = ParseOnly(json, kWanted);
  if (!parsed.is_object() || !parsed.contains("annotations")) return {};
  const Json& annotations = parsed["annotations"];
  return {
      .name = FirstTextAt(annotations, {"io.kubernetes.cri.container-name",
                                        "io.kubernetes.container.name", "nerdctl/name"}),
      .pod = FirstTextAt(annotations, {"io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"}),
      .pod_space = FirstTextAt(
          annotations, {"io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"}),
  };
}

ContainerName ParsePodmanList(std::string_view json, std::string_view container_id) {
  constexpr std::string_view kWanted[] = {"id", "names"};
  const Json parsed = ParseOnly(json, kWanted);
  if (!parsed.is_array()) return {};
  for (const Json& container : parsed) {
    if (TextAt(container, "id") != container_id) continue;
    const auto names = container.find("names");
    if (names == container.end() || !names->is_array() || names->empty()) return {};
    const Json& first = names->front();
    return {.name = first.is_string() ? first.get<std::string>() : "", .pod = "", .pod_space = ""};
  }
  return {};
}

std::string_view OwnerOfPod(std::string_view pod) {
  const size_t last = pod.rfind('-');
  if (last == std::string_view::npos || last == 0) return pod;
  const std::string_view suffix = pod.substr(last + 1);
  const std::string_view rest = pod.substr(0, last);
  if (IsNumber(suffix)) return rest;  // StatefulSet
  if (suffix.size() != 5 || !IsGeneratedSuffix(suffix)) return pod;
  const size_t hash_at = rest.rfind('-');
  if (hash_at == std::string_view::npos || hash_at == 0) return rest;
  const std::string_view hash = rest.substr(hash_at + 1);
  const bool replica_set = hash.size() >= 6 && hash.size() <= 10 && IsGeneratedSuffix(hash);
  return replica_set ? rest.substr(0, hash_at) : rest;
}

ContainerName ContainerNames::Read(const CgroupFacts& facts) const {
  const std::string& id = facts.container_id;
  if (id.find('/') != std::string::npos || id == "." || id == "..") return {};
  const std::vector<std::string> bundles = {
      "/run/containerd/io.containerd.runtime.v2.task/k8s.io/" + id + "/config.json",
      "/run/containerd/io.containerd.runtime.v2.task/default/" + id + "/config.json",
      "/run/containers/storage/overlay-containers/" + id + "/userdata/config.json",
  };
  if (facts.runtime == ContainerRuntime::kDocker || facts.runtime == ContainerRuntime::kUnknown) {
    const auto text = ReadStateFile(root_ + "/var/lib/docker/containers/" + id + "/config.v2.json");
    if (text) return ParseDockerConfig(*text);
  }
  if (facts.runtime == ContainerRuntime::kPodman) {
    const auto text =
        ReadStateFile(root_ + "/var/lib/containers/storage/overlay-containers/containers.json");
    if (text) return ParsePodmanList(*text, id);
  }
  if (facts.runtime == ContainerRuntime::kLxc || facts.runtime == ContainerRuntime::kMachine) {
    return {.name = id, .pod = "", .pod_space = ""};
  }
  for (const std::string& path : bundles) {
    if (const auto text = ReadStateFile(root_ + path)) return ParseOciBundle(*text);
  }
  return {};
}

const ContainerName& ContainerNames::Find(const CgroupFacts& facts) {
  if (const auto known = by_id_.find(std::string_view(facts.container_id)); known != by_id_.end()) {
    return known->second;
  }
  if (by_id_.size() >= kMaxCached) by_id_.clear();
  return by_id_[facts.container_id] = Read(facts);
}

}  // namespace firewatch::agent
