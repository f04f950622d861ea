// SPDX-License-Identifier: Apache-2.0
#include "server/debuginfo/name_cache.h"

#include <algorithm>
#include <utility>

#include "absl/hash/hash.h"

namespace firewatch::server {
namespace {

// What a row of a hash map costs beside its contents: about.
constexpr size_t kRowBytes = 48;
// Bounds what a query holds of its frames beside the cache.
constexpr size_t kOffsetsAtOnce = 512;

// Offsets of neighbours differ in their low bits, which the multiplication carries up.
size_t ShardOf(uint64_t key, size_t shards) {
  return static_cast<size_t>((key * 0x9e3779b97f4a7c15ULL) >> 32) % shards;
}

// A record that only tells another reason gives the same names.
bool SameSegments(const BinaryRecord* a, const BinaryRecord* b) {
  if (a == b) return true;
  if (a == nullptr || b == nullptr) return false;
  return std::ranges::equal(a->segments, b->segments, [](const auto& x, const auto& y) {
    return x.file_offset == y.file_offset && x.file_size == y.file_size && x.vaddr == y.vaddr;
  });
}

}  // namespace

void CachedNames::Count(size_t bytes) {
  own_bytes_.fetch_add(bytes);
  bytes_->fetch_add(bytes);
}

bool CachedNames::Recall(uint64_t file_offset, std::vector<NameFrame>* frames) {
  Shard& shard = shards_[ShardOf(file_offset, kShards)];
  base::MutexLock lock(shard.mutex);
  const auto it = shard.frames.find(file_offset);
  if (it == shard.frames.end()) return false;
  frames->insert(frames->end(), it->second.begin(), it->second.end());
  return true;
}

void CachedNames::Remember(uint64_t file_offset, std::span<const NameFrame> frames) {
  Shard& shard = shards_[ShardOf(file_offset, kShards)];
  base::MutexLock lock(shard.mutex);
  const bool is_new = shard.frames.try_emplace(file_offset, frames.begin(), frames.end()).second;
  if (is_new) Count(kRowBytes + frames.size_bytes());
}

void CachedNames::Find(
    std::span<const uint64_t> file_offsets,
    absl::FunctionRef<void(size_t number, std::span<const NameFrame> frames)> take) {
  struct Row {
    size_t begin = 0, count = 0;  // in `frames`
  };
  const auto known = record_ == nullptr
                         ? std::span<const symbolizer::ElfSegment>()
                         : std::span<const symbolizer::ElfSegment>(record_->segments);
  std::vector<NameFrame> frames;
  std::vector<Row> rows;
  std::vector<uint64_t> missing;
  std::vector<size_t> missing_rows;
  for (size_t begin = 0; begin < file_offsets.size(); begin += kOffsetsAtOnce) {
    const auto some =
        file_offsets.subspan(begin, std::min(kOffsetsAtOnce, file_offsets.size() - begin));
    frames.clear();
    missing.clear();
    missing_rows.clear();
    rows.assign(some.size(), {});
    for (size_t i = 0; i < some.size(); ++i) {
      rows[i].begin = frames.size();
      if (Recall(some[i], &frames)) {
        rows[i].count = frames.size() - rows[i].begin;
      } else {
        missing.push_back(some[i]);
        missing_rows.push_back(i);
      }
    }
    if (!missing.empty()) {
      names_->Find(missing, known, [&](size_t number, std::span<const NameFrame> found) {
        rows[missing_rows[number]] = {.begin = frames.size(), .count = found.size()};
        frames.insert(frames.end(), found.begin(), found.end());
        Remember(missing[number], found);
      });
    }
    for (size_t i = 0; i < some.size(); ++i) {
      take(begin + i, std::span(frames).subspan(rows[i].begin, rows[i].count));
    }
  }
}

CachedNames::Text CachedNames::TextOf(uint32_t id) {
  if (id == 0) return {};
  Shard& shard = shards_[ShardOf(id, kShards)];
  {
    base::MutexLock lock(shard.mutex);
    const auto it = shard.texts.find(id);
    if (it != shard.texts.end()) return it->second;
  }
  Text text;
  names_->Text(id, &text.display, &text.linkage);
  base::MutexLock lock(shard.mutex);
  if (shard.texts.try_emplace(id, text).second) {
    Count(kRowBytes + sizeof(Text) + text.display.size() + text.linkage.size());
  }
  return text;
}

std::shared_ptr<CachedNames> NameCache::Of(const symbolizer::BuildId& id,
                                           std::shared_ptr<const BinaryNames> names,
                                           std::shared_ptr<const BinaryRecord> record) {
  std::vector<std::shared_ptr<CachedNames>> dropped;  // destroyed without the lock
  Shard& shard = shards_[absl::Hash<symbolizer::BuildId>()(id) % kShards];
  base::MutexLock lock(shard.mutex);
  if (bytes_->load() > max_bytes_ || shard.binaries.size() >= kMaxBinariesPerShard) {
    for (auto& [key, cached] : shard.binaries) dropped.push_back(std::move(cached));
    shard.binaries.clear();
  }
  std::shared_ptr<CachedNames>& place = shard.binaries[id];
  if (place != nullptr && place->names() == names.get() &&
      SameSegments(place->record(), record.get())) {
    return place;
  }
  if (place != nullptr) dropped.push_back(std::move(place));
  place = std::make_shared<CachedNames>(std::move(names), std::move(record), bytes_);
  return place;
}

}  // namespace firewatch::server
