// SPDX-License-Identifier: Apache-2.0
#include "server/debuginfo/name_cache.h"

#include <algorithm>
#include <utility>

#include "absl/hash/hash.h"

namespace firewatch::server {
namespace {

// What a row of a hash map costs beside its contents: about.
constexpr size_t kRowBytes = 48;

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

size_t CachedNames::Find(uint64_t file_offset, std::span<NameFrame> out) {
  Shard& shard = shards_[ShardOf(file_offset, kShards)];
  {
    base::MutexLock lock(shard.mutex);
    const auto it = shard.frames.find(file_offset);
    if (it != shard.frames.end()) {
      const size_t count = std::min(it->second.size(), out.size());
      std::copy_n(it->second.begin(), count, out.begin());
      return count;
    }
  }
  const auto known = record_ == nullptr
                         ? std::span<const symbolizer::ElfSegment>()
                         : std::span<const symbolizer::ElfSegment>(record_->segments);
  const size_t count = names_->Find(file_offset, known, out);
  base::MutexLock lock(shard.mutex);
  const auto [it, is_new] = shard.frames.try_emplace(
      file_offset, out.begin(), out.begin() + static_cast<std::ptrdiff_t>(count));
  if (is_new) Count(kRowBytes + count * sizeof(NameFrame));
  return count;
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
