// SPDX-License-Identifier: Apache-2.0
// The one-machine store, on RocksDB. Key layout and value formats: docs/formats.md.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "server/store/profile_store.h"

namespace firewatch::server {

struct EmbeddedStoreOptions {
  std::string directory;                          // made if missing
  int64_t retention_hours = 24 * 7;               // by age; 0: for ever
  uint64_t retention_bytes = uint64_t{10} << 30;  // by size on disk; 0: no bound
  uint64_t cache_bytes = uint64_t{256} << 20;
  // Below this, Append is refused (ResourceExhausted) and CheckHealth fails; queries work.
  uint64_t min_free_bytes = uint64_t{128} << 20;
};

// `clock` and `metrics` must outlive the store. FailedPrecondition: another process has it open.
absl::StatusOr<std::unique_ptr<ProfileStore>> OpenEmbeddedStore(EmbeddedStoreOptions options,
                                                                const base::Clock& clock,
                                                                base::MetricsRegistry& metrics);

}  // namespace firewatch::server
