// SPDX-License-Identifier: Apache-2.0
// A ProfileStore whose merged profiles carry the best names that are known now: what the store
// has, or what the server's own indexes say. The stored profile and the identity of its locations
// are untouched, so a name that arrives later never splits a stack.
#pragma once

#include "base/metrics.h"
#include "server/debuginfo/debuginfo.h"
#include "server/debuginfo/name_cache.h"
#include "server/store/profile_store.h"

namespace firewatch::server {

struct NamingStats {
  uint64_t looked_up = 0;  // locations that lacked something
  uint64_t improved = 0;
};

// Locations of files with a build id that have no name, or lack file and line, get the frames of
// their offset where those are better: named beats bare, then more frames, then more lines win.
// All offsets of one file are looked up together.
NamingStats NameProfile(profile::Profile& profile, DebugInfo& debuginfo, NameCache& cache);

// Any thread. All must outlive it.
class NamingStore final : public ProfileStore {
 public:
  NamingStore(ProfileStore& store, DebugInfo& debuginfo, base::MetricsRegistry& metrics);

  absl::Status Append(const WindowBatch& batch, bool* duplicate) override {
    return store_.Append(batch, duplicate);
  }
  absl::StatusOr<std::vector<std::string>> LabelNames(const Query& query) override {
    return store_.LabelNames(query);
  }
  absl::StatusOr<std::vector<std::string>> LabelValues(const Query& query,
                                                       std::string_view name) override {
    return store_.LabelValues(query, name);
  }
  absl::StatusOr<std::vector<SeriesPoints>> Series(const Query& query, int64_t step_ms) override {
    return store_.Series(query, step_ms);
  }
  absl::StatusOr<ConnectionReport> Connections(const Query& query) override {
    return store_.Connections(query);
  }
  absl::StatusOr<profile::Profile> Merge(const Query& query) override;
  absl::StatusOr<StoreStats> Stats() override { return store_.Stats(); }
  absl::Status CheckHealth() override { return store_.CheckHealth(); }
  absl::Status ApplyRetention(int64_t now_ms) override { return store_.ApplyRetention(now_ms); }

 private:
  ProfileStore& store_;
  DebugInfo& debuginfo_;
  NameCache cache_;
  base::Counter &looked_up_, &improved_;
};

}  // namespace firewatch::server
