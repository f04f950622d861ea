// SPDX-License-Identifier: Apache-2.0
// Side-band events: what the kernel says about processes while it samples them. They come from perf
// side-band rings (sideband.h), from /proc at start, or from a replay file, and are applied to the
// ProcessTable in the order of their times.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "symbolizer/file_identity.h"

namespace firewatch::agent {

// Distinct from a thread id: names a process (thread group) in the agent's pid namespace.
enum class Pid : uint32_t {};

enum class ProcessEventKind : uint8_t {
  kFork,  // a process (not a thread) was made: parent is set; it inherits the parent's mappings
  kExec,  // the process replaced its image: all mappings are gone, comm is new
  kComm,  // a thread was renamed; changes the process when tid == pid
  kMmap,  // an executable mapping appeared (start, end, file_offset, file)
  kExit,  // the process (its last thread) ended
  kLost,  // the kernel dropped `lost` events on one CPU: what came from it is incomplete
};

struct ProcessEvent {
  ProcessEventKind kind = ProcessEventKind::kLost;
  uint64_t time_ns = 0;  // CLOCK_MONOTONIC
  Pid pid{};
  Pid parent{};  // kFork
  uint32_t tid = 0;
  uint64_t lost = 0;  // kLost
  std::string comm;   // kExec, kComm
  // kMmap: [start, end) maps file bytes from file_offset.
  uint64_t start = 0;
  uint64_t end = 0;
  uint64_t file_offset = 0;
  symbolizer::FileIdentity file;
};

}  // namespace firewatch::agent
