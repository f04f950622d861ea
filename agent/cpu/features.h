// SPDX-License-Identifier: Apache-2.0
// What this kernel and these privileges allow. Every probe really tries: a version number or a
// capability bit is only reported, never trusted.
#pragma once

#include <string>
#include <vector>

namespace firewatch::agent {

enum class FeatureNeed {
  kRequired,  // no profile without it
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

// True when everything that is kRequired is available.
bool CanSample(const std::vector<Feature>& features);

}  // namespace firewatch::agent
