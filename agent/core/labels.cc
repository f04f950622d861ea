// SPDX-License-Identifier: Apache-2.0
#include "agent/core/labels.h"

#include <limits.h>
#include <unistd.h>

#include <array>
#include <utility>
#include <vector>

namespace firewatch::agent {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

std::string HostName() {
  std::array<char, HOST_NAME_MAX + 1> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "unknown";
  return name.data();
}

std::string_view BaseName(std::string_view path) { return path.substr(path.rfind('/') + 1); }

// Length of the well-formed UTF-8 character at the front of `text` (Unicode 15, table 3-7), 0 when
// there is none.
size_t CharacterSize(std::string_view text) {
  const auto byte = [&text](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t size = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < size) return 0;
  for (size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  const uint8_t second = byte(1);
  const bool overlong = (lead == 0xE0 && second < 0xA0) || (lead == 0xF0 && second < 0x90);
  const bool surrogate = lead == 0xED && second > 0x9F;
  const bool too_large = lead == 0xF4 && second > 0x8F;
  return overlong || surrogate || too_large ? 0 : size;
}

}  // namespace

std::string CleanLabelValue(std::string_view value) {
  std::string out;
  while (!value.empty()) {
    const size_t size = CharacterSize(value);
    const std::string_view piece = size == 0 ? kReplacement : value.substr(0, size);
    if (out.size() + piece.size() > profile::kMaxLabelValueBytes) break;
    out.append(piece);
    value.remove_prefix(size == 0 ? 1 : size);
  }
  return out;
}

LabelMaker::LabelMaker(LabelOptions options)
    : options_(std::move(options)), containers_(options_.state_root) {
  if (options_.node.empty()) options_.node = HostName();
}

std::string LabelMaker::Service(const LabelFacts& facts, const CgroupFacts& cgroup) {
  if (!options_.service.empty()) return options_.service;
  if (facts.kernel_thread) return "kernel";
  if (!cgroup.container_id.empty()) {
    const ContainerName& container = containers_.Find(cgroup);
    if (!container.pod.empty()) return std::string(OwnerOfPod(container.pod));
    if (!container.name.empty()) return container.name;
  }
  // Inside a container the unit around it is the runtime's own, or one of a nested systemd.
  if (cgroup.container_id.empty() && !cgroup.unit.empty()) return cgroup.unit;
  if (!facts.exe_path.empty()) return std::string(BaseName(facts.exe_path));
  return std::string(facts.comm);
}

std::shared_ptr<const profile::LabelSet> LabelMaker::Make(const LabelFacts& facts) {
  const CgroupFacts cgroup = ParseCgroupPath(facts.cgroup_path);
  std::vector<std::pair<std::string, std::string>> pairs;
  const auto add = [&pairs](std::string_view name, std::string_view value) {
    pairs.emplace_back(std::string(name), CleanLabelValue(value));
  };
  add("node", options_.node);
  add("service", Service(facts, cgroup));
  add("container_id", cgroup.container_id);
  add("cgroup", facts.cgroup_path);
  add("exe", facts.exe_path);
  add("comm", facts.comm);
  // Equal names: the last one wins.
  for (const auto& [name, value] : options_.extra.pairs()) add(name, value);
  return std::make_shared<const profile::LabelSet>(std::move(pairs));
}

}  // namespace firewatch::agent
