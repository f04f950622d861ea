// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/file_identity.h"

#include <algorithm>

namespace firewatch::symbolizer {

std::string BuildId::ToHex() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  const size_t count = std::min<size_t>(size, bytes.size());
  hex.reserve(count * 2);
  for (size_t i = 0; i < count; ++i) {
    hex += kDigits[bytes[i] >> 4];
    hex += kDigits[bytes[i] & 15];
  }
  return hex;
}

}  // namespace firewatch::symbolizer
