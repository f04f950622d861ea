// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/features.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace firewatch::agent {
namespace {

TEST(FeaturesTest, EveryMissingFeatureHasARemedyAndEveryLineADetail) {
  const std::vector<Feature> features = ProbeFeatures();
  EXPECT_GE(features.size(), 12u);
  for (const Feature& feature : features) {
    EXPECT_FALSE(feature.name.empty());
    EXPECT_FALSE(feature.detail.empty()) << feature.name;
    if (!feature.available && feature.need != FeatureNeed::kInfo) {
      EXPECT_FALSE(feature.remedy.empty()) << feature.name;
    }
  }
}

TEST(FeaturesTest, OneMissingRequirementIsEnough) {
  std::vector<Feature> features = {{"a", true, FeatureNeed::kRequired, "x", ""},
                                   {"b", false, FeatureNeed::kDegrades, "x", "y"},
                                   {"c", false, FeatureNeed::kInfo, "x", ""}};
  EXPECT_TRUE(CanSample(features));
  features[0].available = false;
  EXPECT_FALSE(CanSample(features));
}

TEST(FeaturesTest, TheBestSourceIsTheFirstThatNothingRefuses) {
  std::vector<Feature> features = {{"BPF maps", true, FeatureNeed::kRequired, "x", ""},
                                   {"perf stack copies", true, FeatureNeed::kInfo, "x", ""},
                                   {"ptrace", true, FeatureNeed::kInfo, "x", ""}};
  EXPECT_EQ(BestSource(features), SourceKind::kEbpf);
  features[0].available = false;
  EXPECT_EQ(BestSource(features), SourceKind::kPerf);
  features[1].available = false;
  EXPECT_EQ(BestSource(features), SourceKind::kPtrace);
  features[2].available = false;
  EXPECT_EQ(BestSource(features), std::nullopt);
}

}  // namespace
}  // namespace firewatch::agent
