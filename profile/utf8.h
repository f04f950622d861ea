// SPDX-License-Identifier: Apache-2.0
// Names come from symbol tables, comm fields and strangers' profiles: any bytes. Everything that
// leaves this folder (JSON, protobuf strings, the browser's columns) must be UTF-8, so text is
// made valid where it enters a profile, once.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace firewatch::profile {

// Strict: no overlong forms, no surrogates, nothing above U+10FFFF.
bool IsValidUtf8(std::string_view text);

// Each byte that belongs to no valid sequence becomes U+FFFD.
std::string ToValidUtf8(std::string_view text);

// The longest prefix of at most max_bytes that does not cut a character. `text` must be valid.
std::string_view Utf8Prefix(std::string_view text, size_t max_bytes);

}  // namespace firewatch::profile
