// SPDX-License-Identifier: Apache-2.0
// A spool file may be cut short or altered by a disk. What is accepted must encode back to itself.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "agent/upload/spool_file.h"
#include "base/check.h"
#include "proto/ingest.pb.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace firewatch;
  const std::string_view file(reinterpret_cast<const char*>(data), size);
  if (const auto payload = agent::DecodeSpoolFile(file); payload.ok()) {
    CHECK(agent::EncodeSpoolHeader(*payload) + std::string(*payload) == file);
  }
  // The payload behind a valid header is parsed too, whatever it holds.
  const std::string_view body = file.substr(std::min(file.size(), agent::kSpoolHeaderBytes));
  const std::string whole = agent::EncodeSpoolHeader(body) + std::string(body);
  const auto payload = agent::DecodeSpoolFile(whole);
  CHECK(payload.ok() && *payload == body);
  ingest::UploadWindowRequest window;
  (void)window.ParseFromArray(payload->data(), static_cast<int>(payload->size()));
  return 0;
}
