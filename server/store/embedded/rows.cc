// SPDX-License-Identifier: Apache-2.0
#include "server/store/embedded/rows.h"

#include <algorithm>

#include "server/store/embedded/bytes.h"

namespace firewatch::server {
namespace {

void PutCounts(std::string& out, const NamedCounts& counts) {
  PutVarint(out, counts.size());
  for (const auto& [name, count] : counts) {
    PutString(out, name);
    PutVarint(out, count);
  }
}

bool ReadCounts(ByteReader& reader, NamedCounts* counts) {
  const uint64_t size = reader.Varint();
  if (!reader.CanHold(size, 2)) return false;
  counts->clear();
  counts->reserve(size);
  for (uint64_t i = 0; i < size; ++i) {
    std::string name(reader.String());
    const uint64_t count = reader.Varint();
    counts->emplace_back(std::move(name), count);
  }
  return !reader.failed();
}

}  // namespace

std::string EncodeInterned(const base::Hash128& hash, std::string_view payload) {
  std::string value;
  value.reserve(16 + payload.size());
  PutHash(value, hash);
  value.append(payload);
  return value;
}

bool DecodeInterned(std::string_view value, base::Hash128* hash, std::string_view* payload) {
  ByteReader reader(value);
  *hash = reader.Hash();
  if (reader.failed()) return false;
  *payload = value.substr(16);
  return true;
}

std::string FunctionRow::Encode() const {
  std::string out;
  PutString(out, name);
  PutString(out, system_name == name ? std::string_view() : system_name);
  PutString(out, file);
  PutSigned(out, start_line);
  out.push_back(system_name == name ? 1 : 0);
  return out;
}

bool FunctionRow::Decode(std::string_view payload) {
  ByteReader reader(payload);
  name = reader.String();
  system_name = reader.String();
  file = reader.String();
  start_line = reader.Signed();
  if (reader.BigEndian<uint8_t>() != 0) system_name = name;
  return reader.Complete();
}

std::string MappingRow::Encode() const {
  std::string out;
  PutString(out, file);
  PutString(out, build_id);
  PutVarint(out, memory_start);
  PutVarint(out, memory_limit);
  PutVarint(out, file_offset);
  return out;
}

bool MappingRow::Decode(std::string_view payload) {
  ByteReader reader(payload);
  file = reader.String();
  build_id = reader.String();
  memory_start = reader.Varint();
  memory_limit = reader.Varint();
  file_offset = reader.Varint();
  return reader.Complete();
}

std::string LocationRow::Encode() const {
  std::string out;
  out.push_back(static_cast<char>(kind));
  out.push_back(is_folded ? 1 : 0);
  PutVarint(out, mapping);
  PutVarint(out, address);
  return out;
}

bool LocationRow::Decode(std::string_view payload) {
  ByteReader reader(payload);
  const auto kind_byte = reader.BigEndian<uint8_t>();
  if (kind_byte > static_cast<uint8_t>(profile::LocationKind::kJit)) return false;
  kind = static_cast<profile::LocationKind>(kind_byte);
  is_folded = reader.BigEndian<uint8_t>() != 0;
  mapping = reader.Varint32();
  address = reader.Varint();
  return reader.Complete();
}

std::string NamesRow::Encode() const {
  std::string out;
  for (const Line& line : lines) {
    PutVarint(out, line.function);
    PutSigned(out, line.line);
    PutSigned(out, line.column);
  }
  return out;
}

bool NamesRow::Decode(std::string_view value) {
  ByteReader reader(value);
  lines.clear();
  while (reader.remaining() > 0) {
    Line line;
    line.function = reader.Varint32();
    line.line = reader.Signed();
    line.column = reader.Signed();
    lines.push_back(line);
  }
  return reader.Complete();
}

uint16_t NameScore(const profile::Profile& profile, const profile::Location& location) {
  size_t named = 0;
  size_t detailed = 0;
  for (const profile::Line& line : location.lines) {
    const profile::Function& function = profile.functions[line.function.index()];
    if (profile.String(function.name).empty()) continue;
    ++named;
    if (line.line != 0 && !profile.String(function.file).empty()) ++detailed;
  }
  if (named == 0) return 0;
  return static_cast<uint16_t>(std::min<size_t>(named, 255) << 8 | std::min<size_t>(detailed, 255));
}

std::string EncodeStack(const std::vector<uint32_t>& locations) {
  std::string out;
  for (const uint32_t location : locations) PutVarint(out, location);
  return out;
}

bool DecodeStack(std::string_view payload, std::vector<uint32_t>* locations) {
  ByteReader reader(payload);
  locations->clear();
  while (reader.remaining() > 0) locations->push_back(reader.Varint32());
  return reader.Complete();
}

std::string WindowRow::Encode(int64_t start_ms) const {
  std::string out;
  PutSigned(out, end_ms - start_ms);
  PutString(out, node);
  PutVarint(out, totals.size());
  uint32_t previous = 0;
  for (const SeriesTotal& total : totals) {
    PutVarint(out, total.series - previous);
    PutVarint(out, static_cast<uint64_t>(total.samples));
    PutVarint(out, static_cast<uint64_t>(total.cpu_ns));
    previous = total.series;
  }
  PutCounts(out, losses);
  PutCounts(out, stack_ends);
  return out;
}

bool WindowRow::Decode(int64_t start_ms, std::string_view value) {
  ByteReader reader(value);
  if (__builtin_add_overflow(start_ms, reader.Signed(), &end_ms)) return false;
  node = reader.String();
  const uint64_t size = reader.Varint();
  if (!reader.CanHold(size, 3)) return false;
  totals.clear();
  totals.reserve(size);
  uint64_t series = 0;
  for (uint64_t i = 0; i < size; ++i) {
    series += reader.Varint32();
    SeriesTotal total;
    total.series = static_cast<uint32_t>(series);
    total.samples = static_cast<int64_t>(reader.Varint());
    total.cpu_ns = static_cast<int64_t>(reader.Varint());
    if (series > UINT32_MAX || total.samples < 0 || total.cpu_ns < 0) return false;
    totals.push_back(total);
  }
  return ReadCounts(reader, &losses) && ReadCounts(reader, &stack_ends) && reader.Complete();
}

}  // namespace firewatch::server
