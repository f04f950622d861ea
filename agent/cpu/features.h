// SPDX-License-Identifier: Apache-2.0
// What this kernel and these privileges allow. Every probe really tries: a version number or a
// capability bit is only reported, never trusted.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/cpu/sample_source.h"

namespace firewatch::agent {

enum class FeatureNeed {
  kRequired,  // not the BPF sampler without it: a fallback, or none (BestSource)
  kDegrades,  // something is missing without it; `remedy` says how to mend it
  kInfo,      // for the reader
};

struct Feature {
  std::string name;  // "perf events", stable: scripts look for it
  bool available = false;
  FeatureNeed need = FeatureNeed::kInfo;
  std::string detail;  // what was found: "6.18.0", "refused: Operation not permitted"
  std::string remedy;  // what to do when it is not available; "" when there is nothing to do
};

// Takes some milliseconds: opens and closes perf events and loads tiny BPF programs. Changes
// nothing.
std::vector<Feature> ProbeFeatures();

// The sampler that `auto` would take; nothing when not even threads of its own processes may be
// stopped.
std::optional<SourceKind> BestSource(const std::vector<Feature>& features);

// "ebpf: the whole machine", "perf: the processes of this user, by copies of their stacks (fallback)".
std::string DescribeBestSource(const std::vector<Feature>& features);

// True when everything that is kRequired is available.
bool CanSample(const std::vector<Feature>& features);

}  // namespace firewatch::agent
