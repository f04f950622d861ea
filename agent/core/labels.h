// SPDX-License-Identifier: Apache-2.0
// The labels that a process's samples are stored under. `service` is what a user looks for first:
// the label given on the command line, else the Kubernetes owner, else the container's name, else
// the systemd unit, else the executable's base name; kernel threads are the service "kernel".
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "agent/core/container_names.h"
#include "profile/labels.h"

namespace firewatch::agent {

struct LabelOptions {
  std::string node;             // host name when empty
  std::string service;          // wins over everything that is discovered
  profile::LabelSet extra;      // added to every set; wins over discovered labels of the same name
  std::string state_root = "";  // before the paths of container runtimes' state files (tests)
};

struct LabelFacts {
  std::string_view cgroup_path;  // "" when unknown
  std::string_view exe_path;     // "" when unknown
  std::string_view comm;
  bool kernel_thread = false;
};

// One home thread.
class LabelMaker {
 public:
  explicit LabelMaker(LabelOptions options);

  // node, service, container_id, cgroup, exe, comm (those that are known) and the extra ones.
  // Values are valid UTF-8 of at most profile::kMaxLabelValueBytes.
  std::shared_ptr<const profile::LabelSet> Make(const LabelFacts& facts);

  const std::string& node() const { return options_.node; }

 private:
  std::string Service(const LabelFacts& facts, const CgroupFacts& cgroup);

  LabelOptions options_;
  ContainerNames containers_;
};

// Invalid bytes become U+FFFD; cut at a character's border.
std::string CleanLabelValue(std::string_view value);

}  // namespace firewatch::agent
