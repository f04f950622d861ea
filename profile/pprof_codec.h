// SPDX-License-Identifier: Apache-2.0
// pprof in and out.
//
// Reading takes bytes of strangers: raw, gzip or zstd (told apart by their first bytes), packed and
// unpacked repeated fields, unknown fields skipped. Refused with InvalidArgument: truncated or
// over-long containers, ids that are zero, doubled or point nowhere, a sample whose values do not
// match the sample types, string indices out of range, anything past the limits. Nothing is
// allocated by a declared length, and time is linear in the inflated size.
// What other profilers write becomes what Firewatch writes:
//   - addresses that their mapping covers become file offsets, and the mapping starts at 0;
//     address 0 and addresses outside keep their value and have kind kUnknown
//   - the kind of a location follows from its mapping's name (KindOfMapping in pprof_fields.h)
//   - text that is not UTF-8 is repaired; label values over 2,048 bytes are cut and end in "…"
//   - numeric labels become text, their unit behind them: "4096", "4096 kilobytes"
//   - samples with equal stack and labels are added up (saturating)
//
// Writing sets has_functions on every mapping (so that pprof does not ask for a symbol service),
// gives every location a mapping, writes string_table[0] = "", and is deterministic.
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
  size_t max_stack_depth = 65'536;       // frames of one stack, inlined ones counted
  size_t max_table_rows = 4'000'000;     // each: strings, functions, mappings, locations, lines
  size_t max_frames = size_t{64} << 20;  // all samples together: what a flame tree must walk
  size_t max_label_bytes = size_t{64} << 20;  // all label sets together
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
