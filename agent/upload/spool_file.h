// SPDX-License-Identifier: Apache-2.0
// One window in one file: a header with length and checksum, then the serialized request. The bytes
// are drawn in docs/formats.md, section "Spool file".
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace firewatch::agent {

inline constexpr size_t kSpoolHeaderBytes = 32;

std::string EncodeSpoolHeader(std::string_view payload);

// The payload within `file`. DataLoss says what is wrong: cut short, foreign, or altered bytes.
absl::StatusOr<std::string_view> DecodeSpoolFile(std::string_view file);

}  // namespace firewatch::agent
