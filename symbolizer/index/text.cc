// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/text.h"

#include <cstdint>
#include <cstring>

namespace firewatch::symbolizer {
namespace {

bool IsPlain(char c) { return c >= 0x20 && c < 0x7f; }

// Bytes that the lead byte announces; 0 when it is no lead byte.
size_t AnnouncedLength(uint8_t lead) {
  if (lead >= 0xc2 && lead <= 0xdf) return 2;
  if (lead >= 0xe0 && lead <= 0xef) return 3;
  if (lead >= 0xf0 && lead <= 0xf4) return 4;
  return 0;
}

// Whether 8 bytes are all plain. No byte carries into the next where the answer is yes or would be
// but for one below 0x20: those above 0x7f are found without a sum.
bool ArePlain(const char* bytes) {
  constexpr uint64_t kEach = 0x0101010101010101;
  constexpr uint64_t kHigh = kEach * 0x80;
  uint64_t word;
  std::memcpy(&word, bytes, sizeof(word));
  const bool below_0x7f = ((word | (word + kEach)) & kHigh) == 0;
  return below_0x7f && ((word + kEach * (0x80 - 0x20)) & kHigh) == kHigh;
}

// Nearly all names are ASCII from end to end.
size_t PlainPrefix(std::string_view text) {
  size_t at = 0;
  while (at + sizeof(uint64_t) <= text.size() && ArePlain(text.data() + at)) at += sizeof(uint64_t);
  while (at < text.size() && IsPlain(text[at])) ++at;
  return at;
}

}  // namespace

size_t PrintableSequence(std::string_view text) {
  if (text.empty()) return 0;
  if (IsPlain(text[0])) return 1;
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const size_t length = AnnouncedLength(byte(0));
  if (length == 0 || text.size() < length) return 0;
  uint32_t code = byte(0) & (0xffU >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
    code = (code << 6) | (byte(i) & 0x3fU);
  }
  static constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool control = code < 0xa0;  // C1 controls
  const bool surrogate = code >= 0xd800 && code <= 0xdfff;
  return code < kSmallest[length] || code > 0x10ffff || control || surrogate ? 0 : length;
}

bool IsPrintableUtf8(std::string_view text) {
  for (text.remove_prefix(PlainPrefix(text)); !text.empty();
       text.remove_prefix(PlainPrefix(text))) {
    const size_t length = PrintableSequence(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string MakePrintable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t length = PrintableSequence(text);
    if (length == 0) {
      out += '?';
      text.remove_prefix(1);
    } else {
      out.append(text.substr(0, length));
      text.remove_prefix(length);
    }
  }
  return out;
}

}  // namespace firewatch::symbolizer
