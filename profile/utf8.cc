// SPDX-License-Identifier: Apache-2.0
#include "profile/utf8.h"

#include <cstdint>
#include <cstring>

namespace firewatch::profile {
namespace {

bool IsContinuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

// Bytes of the valid character at the start of `text` (not empty), 0 when there is none.
size_t CharacterBytes(std::string_view text) {
  const auto byte = [text](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  if (first < 0xC2 || first > 0xF4) return 0;
  const size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  if (text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if (!IsContinuation(text[i])) return 0;
  }
  // The second byte excludes overlong forms (E0, F0), surrogates (ED) and what is above U+10FFFF.
  if (first == 0xE0 && byte(1) < 0xA0) return 0;
  if (first == 0xED && byte(1) > 0x9F) return 0;
  if (first == 0xF0 && byte(1) < 0x90) return 0;
  if (first == 0xF4 && byte(1) > 0x8F) return 0;
  return length;
}

// ASCII bytes at the start, eight at a time: nearly every name is nothing else.
size_t AsciiPrefix(std::string_view text) {
  size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + i, sizeof(word));
    if ((word & 0x8080808080808080u) != 0) break;
  }
  while (i < text.size() && static_cast<unsigned char>(text[i]) < 0x80) ++i;
  return i;
}

// Length of the valid part at the start.
size_t ValidPrefix(std::string_view text) {
  size_t i = 0;
  while (true) {
    i += AsciiPrefix(text.substr(i));
    if (i == text.size()) return i;
    const size_t bytes = CharacterBytes(text.substr(i));
    if (bytes == 0) return i;
    i += bytes;
  }
}

}  // namespace

bool IsValidUtf8(std::string_view text) { return ValidPrefix(text) == text.size(); }

std::string ToValidUtf8(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (true) {
    const size_t valid = ValidPrefix(text);
    result.append(text.substr(0, valid));
    if (valid == text.size()) return result;
    result.append("\xEF\xBF\xBD");
    text.remove_prefix(valid + 1);
  }
}

std::string_view Utf8Prefix(std::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return text;
  while (max_bytes > 0 && IsContinuation(text[max_bytes])) --max_bytes;
  return text.substr(0, max_bytes);
}

}  // namespace firewatch::profile
