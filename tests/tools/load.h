// SPDX-License-Identifier: Apache-2.0
// Windows with known answers for the server: each window carries one function that exists in no
// other window ("window_AGENT_SEQUENCE") with a value that no other window has. A window that was
// lost shows as a missing function, one that was counted twice shows as a doubled value.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "proto/ingest.pb.h"
#include "proto/pprof.pb.h"

namespace firewatch::tests {

struct LoadShape {
  uint32_t services = 1;  // profiles per window
  uint32_t stacks = 20;   // per profile, beside the unique one; shared by all windows
  uint32_t depth = 30;
  uint32_t names = 2000;  // functions to draw frames from
  std::string node = "node";
};

// The value (samples) of window_AGENT_SEQUENCE: unique while sequence < 10'000.
constexpr uint64_t UniqueValue(uint32_t agent, uint64_t sequence) {
  return 1'000'000 + uint64_t{agent} * 10'000 + sequence;
}
std::string UniqueName(uint32_t agent, uint64_t sequence);

// The same arguments give the same bytes, so a retry is a true copy.
ingest::UploadWindowRequest MakeWindow(const LoadShape& shape, uint32_t agent, uint64_t sequence,
                                       int64_t start_unix_ns, int64_t length_ns);

pprof::Profile MakeProfile(const LoadShape& shape, uint32_t service, uint32_t agent,
                           uint64_t sequence, int64_t start_unix_ns, int64_t length_ns);

std::string Compress(std::string_view bytes);  // one zstd frame

// Spoils a good window: "truncated-zstd", "huge-length", "bomb", "cyclic-ids", "dangling-ids",
// "unknown-fields", "random-pprof", "empty-profile", "bad-labels", "huge-label", "future-window",
// "backward-window", "no-agent-id", "old-protocol", "new-protocol". False for another name.
bool Spoil(std::string_view kind, ingest::UploadWindowRequest* window);

// All names that Spoil knows, separated by spaces.
std::string_view SpoilKinds();

}  // namespace firewatch::tests
