// SPDX-License-Identifier: Apache-2.0
// pprof in and out.
//
// Reading takes bytes of strangers: raw, gzip or zstd (told apart by their first bytes), packed and
// unpacked repeated fields, unknown fields skipped. Refused with InvalidArgument: truncated or
// over-long containers, ids that are zero, doubled or point nowhere, a sample whose values do not
// match the sample types, string indices out of range, anything past the limits.
//
// Writing sets has_functions on every mapping (so that pprof does not ask for a symbol service),
// gives every location its mapping, writes string_table[0] = "", and is deterministic.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "profile/profile.h"

namespace firewatch::profile {

struct PprofReadLimits {
  size_t max_decompressed_bytes = size_t{256} << 20;
  size_t max_samples = 10'000'000;
  size_t max_stack_depth = 65'536;
};

absl::StatusOr<Profile> ReadPprof(std::string_view bytes, const PprofReadLimits& limits = {});

enum class Compression { kNone, kGzip, kZstd };

// InvalidArgument only when the profile itself is inconsistent. `level` 0 means the codec's default
// (gzip 6, zstd 3).
absl::StatusOr<std::string> WritePprof(const Profile& profile, Compression compression,
                                       int level = 0);

// Inflates gzip or zstd (told by magic), passes anything else through. Refuses (InvalidArgument)
// damaged or truncated input and output past max_bytes; never trusts a declared length.
absl::StatusOr<std::string> Decompress(std::string_view bytes, size_t max_bytes);
absl::StatusOr<std::string> Compress(std::string_view bytes, Compression compression, int level);

}  // namespace firewatch::profile
