// SPDX-License-Identifier: Apache-2.0
#include "server/store/embedded/keys.h"

#include <fmt/format.h>

#include <algorithm>

#include "server/store/embedded/bytes.h"

namespace firewatch::server {
namespace {

constexpr char kPartitionMark = 'p';

// The reader of what follows the prefix, or nothing.
std::optional<ByteReader> Rest(std::string_view kind_prefix, std::string_view key, size_t size) {
  if (!key.starts_with(kind_prefix) || key.size() != kind_prefix.size() + size) return std::nullopt;
  return ByteReader(key.substr(kind_prefix.size()));
}

}  // namespace

uint32_t HourOf(int64_t unix_ms) {
  return static_cast<uint32_t>(std::clamp<int64_t>(unix_ms / kPartitionMs, 0, UINT32_MAX));
}

std::string HourPrefix(uint32_t hour) {
  std::string key(1, kPartitionMark);
  PutBigEndian(key, hour);
  return key;
}

std::string PartitionPrefix(const PartitionKey& partition) {
  std::string key = HourPrefix(partition.hour);
  key.append(partition.tenant);
  key.push_back('\0');
  return key;
}

std::string KindPrefix(const PartitionKey& partition, RowKind kind) {
  std::string key = PartitionPrefix(partition);
  key.push_back(static_cast<char>(kind));
  return key;
}

std::string IdKey(std::string_view kind_prefix, uint32_t id) {
  std::string key(kind_prefix);
  PutBigEndian(key, id);
  return key;
}

std::string NamesKey(std::string_view kind_prefix, uint32_t location, uint16_t score) {
  std::string key = IdKey(kind_prefix, location);
  PutBigEndian(key, static_cast<uint16_t>(~score));
  return key;
}

std::string WindowKey(std::string_view kind_prefix, int64_t start_ms, uint64_t upload_hash) {
  std::string key(kind_prefix);
  PutBigEndian(key, static_cast<uint64_t>(start_ms));
  PutBigEndian(key, upload_hash);
  return key;
}

std::string BlockKey(std::string_view kind_prefix, uint32_t series, int64_t start_ms,
                     uint64_t upload_hash) {
  return WindowKey(IdKey(kind_prefix, series), start_ms, upload_hash);
}

std::optional<PartitionKey> ParsePartition(std::string_view key) {
  if (key.size() < 6 || key.front() != kPartitionMark) return std::nullopt;
  ByteReader reader(key.substr(1));
  const auto hour = reader.BigEndian<uint32_t>();
  const std::string_view rest = key.substr(5);
  const size_t end = rest.find('\0');
  if (end == std::string_view::npos) return std::nullopt;
  return PartitionKey{.hour = hour, .tenant = std::string(rest.substr(0, end))};
}

std::optional<uint32_t> ParseId(std::string_view kind_prefix, std::string_view key) {
  auto reader = Rest(kind_prefix, key, 4);
  if (!reader) return std::nullopt;
  return reader->BigEndian<uint32_t>();
}

std::optional<NamesKeyParts> ParseNames(std::string_view kind_prefix, std::string_view key) {
  auto reader = Rest(kind_prefix, key, 6);
  if (!reader) return std::nullopt;
  NamesKeyParts parts;
  parts.location = reader->BigEndian<uint32_t>();
  parts.score = static_cast<uint16_t>(~reader->BigEndian<uint16_t>());
  return parts;
}

std::optional<int64_t> ParseWindow(std::string_view kind_prefix, std::string_view key) {
  auto reader = Rest(kind_prefix, key, 16);
  if (!reader) return std::nullopt;
  return static_cast<int64_t>(reader->BigEndian<uint64_t>());
}

std::optional<BlockKeyParts> ParseBlock(std::string_view kind_prefix, std::string_view key) {
  auto reader = Rest(kind_prefix, key, 20);
  if (!reader) return std::nullopt;
  BlockKeyParts parts;
  parts.series = reader->BigEndian<uint32_t>();
  parts.start_ms = static_cast<int64_t>(reader->BigEndian<uint64_t>());
  return parts;
}

std::string UploadKey(const TenantId& tenant, const UploadId& upload) {
  std::string key = tenant.value;
  key.push_back('\0');
  key.append(upload.agent_id);
  PutBigEndian(key, upload.sequence);
  return key;
}

std::string HexKey(std::string_view key) {
  std::string text;
  for (const char c : key) text += fmt::format("{:02x}", static_cast<uint8_t>(c));
  return text;
}

}  // namespace firewatch::server
