// SPDX-License-Identifier: Apache-2.0
// Every decoder of stored bytes, chosen by the first byte. What decodes must encode and decode
// again to the same.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "server/store/embedded/block.h"
#include "server/store/embedded/connections_row.h"
#include "server/store/embedded/keys.h"
#include "server/store/embedded/rows.h"

namespace firewatch::server {
namespace {

void TryBlock(std::string_view bytes) {
  static BlockDecoder decoder;
  static BlockEncoder encoder;
  BlockHeader header;
  std::vector<BlockRow> rows;
  if (!decoder.Decode(bytes, &header, &rows).ok() || header.period_ns < 0) return;
  std::vector<BlockRow> again;
  if (!NormalizeRows(rows)) return;
  CHECK(decoder.Decode(encoder.Encode(rows, header.period_ns), &header, &again).ok());
  CHECK(again == rows);
}

void TryWindow(std::string_view bytes) {
  WindowRow row;
  if (!row.Decode(1'700'000'000'000, bytes)) return;
  WindowRow again;
  CHECK(again.Decode(1'700'000'000'000, row.Encode(1'700'000'000'000)));
  CHECK(again.totals.size() == row.totals.size() && again.losses == row.losses);
}

bool ReadConnections(std::string_view bytes, EdgesBySeries* read) {
  return DecodeConnections(
      bytes, [](uint32_t) { return true; },
      [read](uint32_t series, const ConnectionEdge& edge) { (*read)[series].push_back(edge); });
}

void TryConnections(std::string_view bytes) {
  EdgesBySeries read;
  if (!ReadConnections(bytes, &read)) return;
  EdgesBySeries again;
  CHECK(ReadConnections(EncodeConnections(read), &again) && again == read);
  for (auto& [series, edges] : read) NormalizeEdges(edges);
  again.clear();
  CHECK(ReadConnections(EncodeConnections(read), &again) && again == read);
}

template <typename Row>
void TryRow(std::string_view bytes) {
  Row row;
  if (!row.Decode(bytes)) return;
  Row again;
  CHECK(again.Decode(row.Encode()));
  CHECK(again.Encode() == row.Encode());
}

void TryStackAndKeys(std::string_view bytes) {
  std::vector<uint32_t> stack;
  if (DecodeStack(bytes, &stack)) {
    std::vector<uint32_t> again;
    CHECK(DecodeStack(EncodeStack(stack), &again) && again == stack);
  }
  if (const auto partition = ParsePartition(bytes)) {
    CHECK(bytes.starts_with(PartitionPrefix(*partition)));
  }
}

}  // namespace
}  // namespace firewatch::server

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace firewatch::server;  // NOLINT: the fuzzer's entry stands outside of any namespace
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  // A mark of its own: what the corpus has found of the other rows stays of use.
  if (data[0] == 0xc0) {
    TryConnections(bytes);
    return 0;
  }
  switch (data[0] % 7) {
    case 0:
      TryBlock(bytes);
      break;
    case 1:
      TryWindow(bytes);
      break;
    case 2:
      TryRow<FunctionRow>(bytes);
      break;
    case 3:
      TryRow<MappingRow>(bytes);
      break;
    case 4:
      TryRow<LocationRow>(bytes);
      break;
    case 5:
      TryRow<NamesRow>(bytes);
      break;
    default:
      TryStackAndKeys(bytes);
  }
  return 0;
}
