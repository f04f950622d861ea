// SPDX-License-Identifier: Apache-2.0
// The names of queries from the symbolizer's indexes. Files of strangers are read by the sandboxed
// helper alone: one process builds indexes, another tells build ids, so that an upload does not
// wait for a build.
#pragma once

#include <array>
#include <memory>

#include "absl/container/flat_hash_map.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/mutex.h"
#include "server/debuginfo/name_source.h"
#include "symbolizer/helper/helper_queue.h"
#include "symbolizer/index/name_table.h"
#include "symbolizer/index_service.h"

namespace firewatch::server {

// Name tables are decoded by a few readers in turns: each holds 100 KB.
class NameReaders {
 public:
  void Read(const symbolizer::NameTable& table, uint32_t id, std::string* linkage,
            std::string* display);

 private:
  struct Reader {
    base::Mutex mutex;
    symbolizer::NameReader reader ABSL_GUARDED_BY(mutex);
  };
  std::array<Reader, 8> readers_;
};

// Any thread.
class IndexNames final : public NameSource {
 public:
  // All must outlive it. `helper_path`: "" = /proc/self/exe.
  IndexNames(symbolizer::IndexService& service, const std::string& helper_path,
             const base::Clock& clock, base::MetricsRegistry& metrics);

  std::shared_ptr<const BinaryNames> Find(const symbolizer::BuildId& id, NamesState* state,
                                          std::string* reason) override;
  absl::Status Offer(const symbolizer::BuildId& id, NameFiles files, bool replace) override;
  absl::StatusOr<IdentifiedFile> Identify(const base::UniqueFd& file) override;

 private:
  class Names;
  static constexpr size_t kShards = 16;
  static constexpr size_t kMaxNamesPerShard = 64;
  // One object per index, so that what is cached for it stays good.
  struct Shard {
    base::Mutex mutex;
    absl::flat_hash_map<symbolizer::BuildId, std::shared_ptr<const Names>> names
        ABSL_GUARDED_BY(mutex);
  };

  symbolizer::IndexService& service_;
  const std::shared_ptr<NameReaders> readers_ = std::make_shared<NameReaders>();
  std::array<Shard, kShards> shards_;
  base::Mutex identify_mutex_;
  symbolizer::HelperQueue identify_queue_ ABSL_GUARDED_BY(identify_mutex_);
};

}  // namespace firewatch::server
