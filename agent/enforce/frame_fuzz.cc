// SPDX-License-Identifier: Apache-2.0
// Frames of strangers, by the kernel's parser and by its slow twin.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "agent/enforce/host_classifier.h"
#include "agent/enforce/random_rules.h"
#include "agent/enforce/reference.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace firewatch::agent;
  static const RuleSet rules = RandomRules(11).Rules();
  static const Image image = *BuildImage(rules, PlainOptions(rules));
  if (size > 2048) return 0;
  const std::span<const uint8_t> frame(data, size);
  const ReferenceVerdict want = Judge(rules, frame);
  const HostVerdict got = JudgeOnHost(image, frame);
  if (got.reached != want.reached || got.drop != want.drop) std::abort();
  return 0;
}
