// SPDX-License-Identifier: Apache-2.0
#include "cli/doctor.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <string_view>

#include "agent/cpu/features.h"
#include "agent/modules.h"
#include "cli/doctor_modules.h"

namespace firewatch::cli {
namespace {

// What the BPF sampler requires is no failure where another one stands in.
std::string_view Mark(const agent::Feature& feature, bool can_sample) {
  if (feature.available) return feature.need == agent::FeatureNeed::kInfo ? "  -- " : "  ok ";
  switch (feature.need) {
    case agent::FeatureNeed::kRequired:
      return can_sample ? " warn" : " FAIL";
    case agent::FeatureNeed::kDegrades:
      return " warn";
    case agent::FeatureNeed::kInfo:
      return "  -- ";
  }
  return "  -- ";
}

}  // namespace

int RunDoctor(bool quiet) {
  const std::vector<agent::Feature> features = agent::ProbeFeatures();
  const bool can_sample = agent::BestSource(features).has_value();
  const bool fallback = can_sample && !agent::CanSample(features);
  bool degraded = false;
  for (const agent::Feature& feature : features) {
    const bool missing = !feature.available && feature.need != agent::FeatureNeed::kInfo;
    degraded |= missing;
    if (quiet) continue;
    fmt::print("{}  {:<22} {}\n", Mark(feature, can_sample), feature.name, feature.detail);
    if (missing && !feature.remedy.empty()) fmt::print("{:>31}{}\n", "-> ", feature.remedy);
  }
  if (!quiet) {
    fmt::print("{}  {:<22} {}\n",
               !can_sample ? " FAIL"
               : fallback  ? " warn"
                           : "  ok ",
               "sampler", agent::DescribeBestSource(features));
    // The profiler's needs are the lines above.
    for (const auto& module : agent::MakeModules({})) {
      if (module->name() == "cpu") continue;
      bool runs = true;
      fmt::print("{}", FormatNeeds(module->name(), module->Needs(), &runs));
      degraded |= !runs;
    }
    if (!can_sample) {
      fmt::print(
          "\nNothing can be sampled here{}. What works: the server, looking at stored profiles,\n"
          "and firewatch-agent --replay FILE.\n",
          ::geteuid() == 0 ? "" : " as this user; try it as root");
    } else if (fallback) {
      fmt::print(
          "\nSampling works by a fallback; the lines marked warn say what the BPF sampler "
          "needs.\n");
    } else if (degraded) {
      fmt::print(
          "\nSampling works; the lines marked warn say what is missing and how to mend it.\n");
    } else {
      fmt::print("\nEverything works.\n");
    }
  }
  if (!can_sample) return 1;
  return degraded && !quiet ? 2 : 0;
}

int PrintBestSampler() {
  const auto best = agent::BestSource(agent::ProbeFeatures());
  fmt::print("{}\n", best ? agent::SourceKindName(*best) : "none");
  return best ? 0 : 1;
}

}  // namespace firewatch::cli
