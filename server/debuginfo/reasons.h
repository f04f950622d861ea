// SPDX-License-Identifier: Apache-2.0
// Why a frame has no name, and what to do: from what the agent told of its binary and from what
// this server tried itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "profile/profile.h"
#include "server/debuginfo/debuginfo.h"

namespace firewatch::server {

// ingest::NameReason, in the four bits that a flame tree has for it; 0: it has a name.
inline constexpr uint8_t kReasonUnknown = 15;

// "stripped", "no_file", …: stable, for programs.
std::string_view ReasonKey(uint8_t reason);
// One sentence for people.
std::string_view ReasonText(uint8_t reason);
// What they can do; "" when nothing. `build_id`, `path`: of the binary, may be "".
std::string ReasonAdvice(uint8_t reason, std::string_view build_id, std::string_view path);

// The command that names a binary: what advices and the page show.
std::string UploadCommand(std::string_view build_id, std::string_view path);

// For one profile, one thread. Both must outlive it; without `debuginfo` only what the location
// itself says is known.
class BareReasons {
 public:
  BareReasons(const profile::Profile& profile, const DebugInfo* debuginfo)
      : profile_(profile), debuginfo_(debuginfo), of_mapping_(profile.mappings.size()) {}

  // 0 when every frame of the location has a name.
  uint8_t Of(const profile::Location& location);
  // By location: for profile::FlameTreeOptions.
  std::vector<uint8_t> All();
  // What is known beside the reason; "" mostly.
  std::string DetailOf(profile::MappingId mapping);

 private:
  uint8_t ReasonOfFile(profile::MappingId mapping);

  const profile::Profile& profile_;
  const DebugInfo* debuginfo_;
  std::vector<std::optional<uint8_t>> of_mapping_;
};

struct UnnamedBinary {
  std::string path;  // of the mapping, "" unknown
  std::string build_id;
  uint8_t reason = 0;
  int64_t self = 0;    // of stacks whose leaf is a frame without a name of this binary
  int64_t total = 0;   // of stacks with at least one
  int64_t frames = 0;  // values times frames
  std::string detail;
};
struct UnnamedFrames {
  std::vector<UnnamedBinary> binaries;  // by frames, the largest first
  int64_t frames = 0;                   // values times frames without a name
  int64_t all_frames = 0;               // values times frames
  int64_t total = 0;                    // of all stacks
};
// What a flame graph of this value lacks. One row per (path, build id, reason).
UnnamedFrames FindUnnamed(const profile::Profile& profile, int value_index,
                          const DebugInfo* debuginfo);

}  // namespace firewatch::server
