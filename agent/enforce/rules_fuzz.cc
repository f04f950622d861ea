// SPDX-License-Identifier: Apache-2.0
// Rules of strangers, and what is made of those that are taken.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "agent/enforce/host_classifier.h"
#include "agent/enforce/random_rules.h"
#include "agent/enforce/reference.h"
#include "agent/enforce/rules_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace firewatch::agent;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto rules = ParseRules(text, "rules.yaml", [](const std::string& name) {
    return absl::StatusOr<std::string>(name);  // a list may be anything, too
  });
  if (!rules.ok()) return 0;
  const auto image = BuildImage(*rules, PlainOptions(*rules));
  if (!image.ok()) return 0;
  RandomRules random(size);
  for (int i = 0; i < 8; ++i) {
    const auto frame = random.Frame();
    if (Judge(*rules, frame).reached != JudgeOnHost(*image, frame).reached) std::abort();
  }
  return 0;
}
