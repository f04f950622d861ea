// SPDX-License-Identifier: Apache-2.0
// What every handler of the API is given.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "server/debuginfo/debuginfo.h"
#include "server/ingest/node_registry.h"
#include "server/store/profile_store.h"

namespace firewatch::server {

// Immutable; all it refers to is thread-safe and outlives the Api.
struct ApiContext {
  ProfileStore& store;
  const base::Clock& clock;
  std::function<std::vector<NodeStatus>()> nodes;  // heard of since the start; null: none
  std::string version = "0";
  uint32_t max_nodes = 0;          // no flame tree has more, whatever is asked for; 0: no bound
  DebugInfo* debuginfo = nullptr;  // nullptr: names are what the store has
};

}  // namespace firewatch::server
