// SPDX-License-Identifier: Apache-2.0
#include "agent/upload/spool_file.h"

#include <bit>
#include <cstdint>
#include <cstring>

#include "base/hash.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr char kMagic[8] = {'F', 'W', 'S', 'P', 'O', 'O', 'L', '\n'};
constexpr uint32_t kVersion = 1;

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t zero;
  uint64_t payload_bytes;
  uint64_t payload_xxh3;
};
static_assert(sizeof(Header) == kSpoolHeaderBytes);

}  // namespace

std::string EncodeSpoolHeader(std::string_view payload) {
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.version = kVersion;
  header.payload_bytes = payload.size();
  header.payload_xxh3 = base::Hash64(payload);
  return {reinterpret_cast<const char*>(&header), sizeof(header)};
}

absl::StatusOr<std::string_view> DecodeSpoolFile(std::string_view file) {
  Header header;
  if (file.size() < sizeof(header)) {
    return base::DataLoss("{} bytes are no spool file header", file.size());
  }
  std::memcpy(&header, file.data(), sizeof(header));
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0) {
    return base::DataLoss("not a spool file");
  }
  if (header.version != kVersion || header.zero != 0) {
    return base::DataLoss("spool file of version {}, this agent reads {}", header.version,
                          kVersion);
  }
  const std::string_view payload = file.substr(sizeof(header));
  if (header.payload_bytes != payload.size()) {
    return base::DataLoss("{} bytes of payload, the header says {}", payload.size(),
                          header.payload_bytes);
  }
  if (base::Hash64(payload) != header.payload_xxh3) {
    return base::DataLoss("checksum of the payload is wrong");
  }
  return payload;
}

}  // namespace firewatch::agent
