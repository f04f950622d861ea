// SPDX-License-Identifier: Apache-2.0
// Keys of the embedded store (docs/formats.md, "Embedded store"). Everything of a partition (one
// hour of one tenant) stands together, and older hours stand first: retention drops a prefix of the
// key space.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "server/store/profile_store.h"

namespace firewatch::server {

inline constexpr int64_t kPartitionMs = 3'600'000;

// The kinds of rows of a partition, in key order. The first six are interned tables: a dense id per
// content hash.
enum class RowKind : uint8_t {
  kSeries = 1,
  kLabelSet = 2,
  kMapping = 3,
  kFunction = 4,
  kLocation = 5,
  kStack = 6,
  kNames = 7,
  kWindow = 8,
  kBlock = 9,
  kConnections = 10,
};

struct PartitionKey {
  uint32_t hour = 0;   // hours since the Unix epoch
  std::string tenant;  // a valid one (server/store/tenant.h): the key closes it by a zero byte
  friend auto operator<=>(const PartitionKey&, const PartitionKey&) = default;
  template <typename H>
  friend H AbslHashValue(H state, const PartitionKey& key) {
    return H::combine(std::move(state), key.hour, key.tenant);
  }
};

// Times before 1970 and after the year 491,000 are clamped.
uint32_t HourOf(int64_t unix_ms);

std::string HourPrefix(uint32_t hour);
std::string PartitionPrefix(const PartitionKey& partition);
std::string KindPrefix(const PartitionKey& partition, RowKind kind);

// The rest of a key, after its KindPrefix.
std::string IdKey(std::string_view kind_prefix, uint32_t id);
// The best score sorts first.
std::string NamesKey(std::string_view kind_prefix, uint32_t location, uint16_t score);
std::string WindowKey(std::string_view kind_prefix, int64_t start_ms, uint64_t upload_hash);
std::string BlockKey(std::string_view kind_prefix, uint32_t series, int64_t start_ms,
                     uint64_t upload_hash);

// Empty when the key is not a partition's.
std::optional<PartitionKey> ParsePartition(std::string_view key);
// What follows the kind prefix; empty optional when `key` does not start with it or is short.
std::optional<uint32_t> ParseId(std::string_view kind_prefix, std::string_view key);
struct NamesKeyParts {
  uint32_t location = 0;
  uint16_t score = 0;
};
std::optional<NamesKeyParts> ParseNames(std::string_view kind_prefix, std::string_view key);
std::optional<int64_t> ParseWindow(std::string_view kind_prefix, std::string_view key);
struct BlockKeyParts {
  uint32_t series = 0;
  int64_t start_ms = 0;
};
std::optional<BlockKeyParts> ParseBlock(std::string_view kind_prefix, std::string_view key);

std::string UploadKey(const TenantId& tenant, const UploadId& upload);

// "70 00 07 …": what an error says about a damaged row.
std::string HexKey(std::string_view key);

}  // namespace firewatch::server
