// SPDX-License-Identifier: Apache-2.0
// The log of binaries: any bytes give records that are within bounds, and that survive a rewrite.
#include "base/check.h"
#include "server/debuginfo/binary_registry.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  size_t whole_bytes = 0;
  std::string again("FWBIN\0\0\1", 8);
  const auto records = firewatch::server::ReadBinaryLog(bytes, &whole_bytes);
  CHECK(whole_bytes <= size);
  for (const auto& record : records) again += firewatch::server::EncodeBinaryRecord(record);
  CHECK(firewatch::server::ReadBinaryLog(again, &whole_bytes).size() == records.size());
  CHECK(whole_bytes == again.size());
  return 0;
}
