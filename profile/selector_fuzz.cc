// SPDX-License-Identifier: Apache-2.0
// Any text parses or is refused with a message; a label set's text parses back and matches it.
// The first byte chooses: selector text, or bytes of an encoded label set.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "base/status.h"
#include "profile/labels.h"
#include "profile/utf8.h"

namespace firewatch::profile {
namespace {

void TrySelector(std::string_view text) {
  const auto selector = ParseSelector(text);
  if (!selector.ok()) {
    CHECK(IsValidUtf8(base::Message(selector.status())));
    return;
  }
  selector->Matches(LabelSet({{"service", "x"}, {"node", "a-b"}}));
}

void TryLabelSet(std::string_view bytes) {
  const auto set = LabelSet::Decode(bytes);
  if (!set.ok()) return;
  CHECK(set->Encode() == bytes);
  const auto selector = ParseSelector(set->ToString());
  // Refused only where a set may hold what a selector may not.
  const bool empty_name = !set->empty() && set->pairs().front().first.empty();
  if (set->ToString().size() > (16 << 10) || empty_name) return;
  CHECK(selector.ok());
  for (const Matcher& matcher : selector->matchers()) {
    const bool renamed = set->Get("service_name") == matcher.value();
    CHECK(matcher.Matches(set->Get(matcher.name())) || renamed);
  }
}

}  // namespace
}  // namespace firewatch::profile

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (bytes.empty()) return 0;
  if (bytes[0] == '{' || bytes[0] == ' ') {
    firewatch::profile::TrySelector(bytes);
  } else {
    firewatch::profile::TryLabelSet(bytes.substr(1));
  }
  return 0;
}
