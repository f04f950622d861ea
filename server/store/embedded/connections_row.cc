// SPDX-License-Identifier: Apache-2.0
#include "server/store/embedded/connections_row.h"

#include "base/check.h"
#include "server/store/embedded/bytes.h"

namespace firewatch::server {
namespace {

// The first byte of an edge: role, and which kind of address follows.
constexpr uint8_t kRoleMask = 0x03;
constexpr uint8_t kIpv4 = 0x04;
constexpr uint8_t kIpv6 = 0x08;
constexpr uint8_t kKnownBits = kRoleMask | kIpv4 | kIpv6;
// Most counters of most edges are zero: a mask says which follow. The last bit is `living`.
constexpr size_t kLivingBit = kConnectionCounters.size();
static_assert(kLivingBit < 32);

void PutEdge(std::string& out, const ConnectionEdge& edge) {
  uint8_t head = static_cast<uint8_t>(edge.role);
  if (!edge.remote.empty()) head |= edge.remote.size() == 4 ? kIpv4 : kIpv6;
  out.push_back(static_cast<char>(head));
  out.append(edge.remote);
  if (!edge.remote.empty()) PutVarint(out, edge.port);
  uint32_t mask = edge.living == 0 ? 0 : 1U << kLivingBit;
  for (size_t i = 0; i < kConnectionCounters.size(); ++i) {
    if (edge.counts.*kConnectionCounters[i] != 0) mask |= 1U << i;
  }
  PutVarint(out, mask);
  for (const auto counter : kConnectionCounters) {
    if (edge.counts.*counter != 0) PutVarint(out, edge.counts.*counter);
  }
  if (edge.living != 0) PutVarint(out, edge.living);
}

bool ReadEdge(ByteReader& reader, ConnectionEdge* edge) {
  const auto head = reader.BigEndian<uint8_t>();
  const bool both = (head & kIpv4) != 0 && (head & kIpv6) != 0;
  if ((head & ~kKnownBits) != 0 || both) return false;
  edge->role = static_cast<ConnectionRole>(head & kRoleMask);
  edge->remote = reader.Bytes((head & kIpv4) != 0 ? 4 : (head & kIpv6) != 0 ? 16 : 0);
  const uint64_t port = edge->remote.empty() ? 0 : reader.Varint();
  const uint64_t mask = reader.Varint();
  if (port > UINT16_MAX || mask >= 2U << kLivingBit) return false;
  edge->port = static_cast<uint16_t>(port);
  edge->counts = {};
  for (size_t i = 0; i < kConnectionCounters.size(); ++i) {
    if ((mask >> i & 1) != 0) edge->counts.*kConnectionCounters[i] = reader.Varint();
  }
  edge->living = (mask >> kLivingBit & 1) != 0 ? reader.Varint() : 0;
  return !reader.failed() && IsValidEdge(*edge);
}

}  // namespace

std::string EncodeConnections(const EdgesBySeries& edges) {
  std::string out;
  PutVarint(out, edges.size());
  uint32_t previous = 0;
  std::string of_series;
  for (const auto& [series, list] : edges) {
    of_series.clear();
    for (const ConnectionEdge& edge : list) {
      CHECK(IsValidEdge(edge));
      PutEdge(of_series, edge);
    }
    PutVarint(out, series - previous);
    PutString(out, of_series);
    previous = series;
  }
  return out;
}

bool DecodeConnections(std::string_view value, absl::FunctionRef<bool(uint32_t series)> wanted,
                       absl::FunctionRef<void(uint32_t series, const ConnectionEdge& edge)> visit) {
  ByteReader reader(value);
  const uint64_t size = reader.Varint();
  if (!reader.CanHold(size, 2)) return false;
  uint64_t series = 0;
  ConnectionEdge edge;
  for (uint64_t i = 0; i < size; ++i) {
    series += reader.Varint32();
    ByteReader edges(reader.String());
    if (reader.failed() || series > UINT32_MAX) return false;
    if (!wanted(static_cast<uint32_t>(series))) continue;
    while (edges.remaining() > 0) {
      if (!ReadEdge(edges, &edge)) return false;
      visit(static_cast<uint32_t>(series), edge);
    }
  }
  return reader.Complete();
}

}  // namespace firewatch::server
