// SPDX-License-Identifier: Apache-2.0
// How a program comes to sit on an interface, and how to find it there again.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "agent/enforce/firewall_program.h"

namespace firewatch::agent {

enum class AttachMode : uint8_t { kAuto, kNative, kGeneric, kTc };

// "auto", "native", "generic", "tc".
std::string_view AttachModeName(AttachMode mode);
absl::StatusOr<AttachMode> ParseAttachMode(std::string_view text);

struct Attachment {
  AttachMode mode = AttachMode::kNative;  // as it is, never kAuto
  // Why a better mode was not taken: "native: Operation not supported"; "" else.
  std::string note;
};

// Attaches below `directory` (pins "link", or "tc" and "tc_qdisc") in the first mode that works.
// AlreadyExists: another program has the place (named), and `replace` does not say to take it.
// What another holds is never touched otherwise.
absl::StatusOr<Attachment> AttachProgram(const FirewallProgram& program, uint32_t ifindex,
                                         const std::string& directory, AttachMode wanted,
                                         bool replace);

// Puts `program` in the place of the one that the pins in `directory` tell of, without a gap.
// NotFound: nothing is attached (any more): the interface is gone, or somebody has detached it.
absl::StatusOr<Attachment> TakeOver(const FirewallProgram& program, uint32_t ifindex,
                                    const std::string& directory);

// Whether what the pins tell of is still attached to `ifindex`.
bool IsAttached(uint32_t ifindex, const std::string& directory);

// Removes the pins that tell of an attachment which is no more; those of the maps stay.
void ForgetAttachment(const std::string& directory);

// Detaches, and removes every pin and the directory.
void DetachAndUnpin(uint32_t ifindex, const std::string& directory);

// The interfaces that a packet to the default route leaves by, and those below them: locking
// oneself out begins there. Of this thread's network namespace.
bool CarriesDefaultRoute(const std::string& interface);

}  // namespace firewatch::agent
