// SPDX-License-Identifier: Apache-2.0
// Configuration is the operator's, but the same reader takes bodies of requests.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "agent/core/config_node.h"
#include "base/check.h"

namespace {

using firewatch::agent::ConfigEntry;
using firewatch::agent::ConfigNode;

size_t Count(const ConfigNode& node) {
  size_t nodes = 1;
  CHECK(node.Place().starts_with("fuzz:"));
  for (const ConfigNode& item : node.items()) nodes += Count(item);
  for (const ConfigEntry& entry : node.entries()) {
    CHECK(node.Find(entry.key) == &entry.value);
    nodes += Count(entry.value);
  }
  return nodes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace firewatch;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const agent::ConfigLimits limits = {.max_bytes = 65'536, .max_nodes = 1'000, .max_depth = 16};
  const auto node = agent::ParseConfigText(text, "fuzz", limits);
  if (!node.ok() || !node->present()) return 0;
  CHECK(Count(*node) <= limits.max_nodes);
  CHECK(*node == *node);
  agent::ConfigReader reader(*node, "fuzz");
  uint64_t number = 0;
  double ratio = 0;
  bool flag = false;
  reader.Integer("top", uint64_t{1}, uint64_t{10}, &number);
  reader.Duration("interval", 1, 10'000, &number);
  reader.Bytes("bytes", 1, 10'000, &number);
  reader.Number("ratio", 0, 1, &ratio);
  reader.Bool("on", &flag);
  reader.Texts("list", [](const std::string&) { return absl::OkStatus(); });
  reader.Finish().IgnoreError();
  CHECK(ratio >= 0 && ratio <= 1);
  return 0;
}
