// SPDX-License-Identifier: Apache-2.0
// Where bytes go that a build wants again at its end.
#pragma once

#include <cstddef>
#include <functional>
#include <span>

#include "absl/status/statusor.h"

namespace firewatch::symbolizer {

// A view on a copy, outside of private memory, that lives as long as the build. Called by one
// thread at a time. On failure the caller keeps the bytes.
using PutAside =
    std::function<absl::StatusOr<std::span<const std::byte>>(std::span<const std::byte> bytes)>;

}  // namespace firewatch::symbolizer
