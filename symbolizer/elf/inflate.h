// SPDX-License-Identifier: Apache-2.0
// Compressed bytes of a stranger into a block of known size, in pieces: memory does not grow with
// the input. What is inflated is never more than the caller allowed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "symbolizer/elf/scratch_file.h"

namespace firewatch::symbolizer {

enum class Compression : uint8_t { kNone, kZlib, kZstd };

// `packed` becomes exactly `size` bytes in `scratch`. DataLoss when it does not; ResourceExhausted
// when the scratch file is full or zstd wants a window of more than 128 MiB.
absl::StatusOr<std::span<const std::byte>> Inflate(Compression compression,
                                                   std::span<const std::byte> packed, uint64_t size,
                                                   ScratchFile& scratch);

// An .xz stream of unknown size. ResourceExhausted past `max_bytes`, of the result and of the
// decoder's own memory alike; DataLoss.
absl::StatusOr<std::vector<std::byte>> InflateXz(std::span<const std::byte> packed,
                                                 uint64_t max_bytes);

}  // namespace firewatch::symbolizer
