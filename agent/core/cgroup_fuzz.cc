// SPDX-License-Identifier: Apache-2.0
// Cgroup paths and runtimes' state files are composed from names that users choose.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "agent/core/cgroup.h"
#include "agent/core/container_names.h"
#include "agent/core/labels.h"
#include "base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace firewatch;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const agent::CgroupChoice choice = agent::ChooseCgroupPath(text);
  CHECK(!choice.path.empty());
  agent::ParseCgroupPath(choice.path);
  CHECK(agent::OwnerOfPod(text).size() <= text.size());
  agent::ParseDockerConfig(text);
  agent::ParseOciBundle(text);
  agent::ParsePodmanList(text, "x");
  const std::string clean = agent::CleanLabelValue(text);
  CHECK(clean.size() <= profile::kMaxLabelValueBytes);
  CHECK(agent::CleanLabelValue(clean) == clean);
  return 0;
}
