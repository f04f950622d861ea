// SPDX-License-Identifier: Apache-2.0
// Names that were looked up once, by (build id, file offset) and by id of a text. Locks are many
// and short: one of sixteen per build id and query, then one of sixteen of that binary per lookup.
// Bounded in bytes; what is dropped is looked up again.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "base/mutex.h"
#include "server/debuginfo/binary_registry.h"
#include "server/debuginfo/name_source.h"

namespace firewatch::server {

// Of one build id, as its names and segments are now: when either changes there is a new object.
// Any thread.
class CachedNames {
 public:
  struct Text {
    std::string display, linkage;
  };

  // `bytes` counts what all objects of one cache hold; it must outlive this one.
  CachedNames(std::shared_ptr<const BinaryNames> names, std::shared_ptr<const BinaryRecord> record,
              std::shared_ptr<std::atomic<size_t>> bytes)
      : names_(std::move(names)), record_(std::move(record)), bytes_(std::move(bytes)) {}
  ~CachedNames() { bytes_->fetch_sub(own_bytes_.load()); }

  // As BinaryNames::Find, which is asked for those together that were not looked up yet.
  void Find(std::span<const uint64_t> file_offsets,
            absl::FunctionRef<void(size_t number, std::span<const NameFrame> frames)> take);
  Text TextOf(uint32_t id);

  const BinaryNames* names() const { return names_.get(); }
  const BinaryRecord* record() const { return record_.get(); }

 private:
  static constexpr size_t kShards = 16;
  struct Shard {
    base::Mutex mutex;
    absl::flat_hash_map<uint64_t, std::vector<NameFrame>> frames ABSL_GUARDED_BY(mutex);
    absl::flat_hash_map<uint32_t, Text> texts ABSL_GUARDED_BY(mutex);
  };
  // Appends the frames of an offset; false if it was not looked up yet.
  bool Recall(uint64_t file_offset, std::vector<NameFrame>* frames);
  void Remember(uint64_t file_offset, std::span<const NameFrame> frames);
  void Count(size_t bytes);

  const std::shared_ptr<const BinaryNames> names_;
  const std::shared_ptr<const BinaryRecord> record_;  // nullptr: no agent told of it
  const std::shared_ptr<std::atomic<size_t>> bytes_;
  std::atomic<size_t> own_bytes_{0};
  std::array<Shard, kShards> shards_;
};

// Any thread.
class NameCache {
 public:
  explicit NameCache(size_t max_bytes = size_t{128} << 20)
      : max_bytes_(max_bytes), bytes_(std::make_shared<std::atomic<size_t>>(0)) {}

  // The object for these names; stays valid as long as it is held.
  std::shared_ptr<CachedNames> Of(const symbolizer::BuildId& id,
                                  std::shared_ptr<const BinaryNames> names,
                                  std::shared_ptr<const BinaryRecord> record);
  size_t bytes() const { return bytes_->load(); }

 private:
  static constexpr size_t kShards = 16;
  static constexpr size_t kMaxBinariesPerShard = 512;
  struct Shard {
    base::Mutex mutex;
    absl::flat_hash_map<symbolizer::BuildId, std::shared_ptr<CachedNames>> binaries
        ABSL_GUARDED_BY(mutex);
  };

  const size_t max_bytes_;
  const std::shared_ptr<std::atomic<size_t>> bytes_;
  std::array<Shard, kShards> shards_;
};

}  // namespace firewatch::server
