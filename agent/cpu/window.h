// SPDX-License-Identifier: Apache-2.0
// One window of samples on its way from raw records to profiles.
//
// Adding a sample costs one hash of its frames and one table look-up when the stack is known. A new
// stack is resolved at once, while the mappings are those of the sample's time: every user address
// becomes (file, offset) and its file is asked for. Names come at the end, once per distinct frame.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "agent/core/process_table.h"
#include "agent/cpu/sample.h"
#include "base/clock.h"
#include "base/hash.h"
#include "bpf/include/frame.h"
#include "profile/profile.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::agent {

struct WindowOptions {
  uint32_t hz = 19;
  // All processes in one profile, told apart by the sample labels comm and pid (`firewatch
  // record`); else one profile per label set of a process.
  bool single_profile = false;
  // Frames of kind FILE name files of `symbolizer`. False for a replay: the ids in its records are
  // those of another run.
  bool file_frames = true;
  // Beyond this many stored frames (8 bytes each) a new stack is kept as its process alone and
  // counted in `stacks_full`: 4 MiB is ten seconds of 800 distinct 57-frame stacks per second.
  size_t max_frames = size_t{512} << 10;
};

struct WindowGroup {
  profile::LabelSet labels;
  profile::Profile profile;
};

// A mapped file with frames that have no name, or no line. Counts are frames times samples.
struct BinaryGaps {
  symbolizer::FileId file{};
  symbolizer::NameReason no_names = symbolizer::NameReason::kNone;
  uint64_t bare_frames = 0;
  symbolizer::NameReason no_lines = symbolizer::NameReason::kNone;
  uint64_t frames_without_line = 0;  // those with a name
  // Copied from the symbolizer, which may know better by the time that this is sent.
  std::string build_id;  // as in the profiles' mappings
  std::string path;
  std::string detail;
  std::vector<symbolizer::FileSegment> segments;
};

// How the user stacks of one program ended.
struct ProgramStackEnds {
  std::string program;  // base name of the executable, else the name of the main thread
  std::array<uint64_t, FW_STACK_END_COUNT> counts{};
};

struct ClosedWindow {
  base::WallTime start;
  base::WallTime end;
  uint32_t hz = 0;
  uint64_t samples = 0;
  std::vector<WindowGroup> groups;
  std::vector<std::pair<std::string, uint64_t>> losses;      // by name, non-zero ones
  std::vector<std::pair<std::string, uint64_t>> stack_ends;  // by reason, non-zero ones
  std::vector<ProgramStackEnds> program_ends;                // each program once
  std::vector<BinaryGaps> binaries;  // those with gaps, most bare frames first
  std::vector<std::pair<symbolizer::NameReason, uint64_t>> bare_frames;  // by reason, non-zero
  std::string sampler;       // "ebpf", "perf", "ptrace"; "" in a replay
  std::string sampler_note;  // "" unless it is a fallback: why, what that lacks and costs
};

// One home thread. `symbolizer` must outlive it.
class Window {
 public:
  Window(WindowOptions options, symbolizer::Symbolizer& symbolizer);

  void Add(const SampleRecord& sample, const Process& process);

  // Names every frame, builds the profiles and empties the window (its memory is kept for the next
  // one). Losses are the caller's to fill in.
  ClosedWindow Close(base::WallTime start, base::WallTime end);

  // What a sample is worth from here on; CHECKs that the window is empty.
  void SetHz(uint32_t hz);

  uint64_t samples() const { return samples_; }
  uint64_t stacks_full() const { return stacks_full_; }  // since Close

 private:
  // A process as it was at its samples: a new one for each exec and each change of mappings.
  struct Owner {
    uint64_t incarnation;
    Pid pid;
    Pid parent;
    std::string comm;
    std::string program;
    std::shared_ptr<const MappingSet> mappings;
    std::shared_ptr<const profile::LabelSet> labels;
    std::array<uint32_t, FW_STACK_END_COUNT> stack_ends{};
    bool jit_requested = false;
  };
  struct Stack {
    uint32_t owner;
    uint32_t thread;  // index into threads_
    uint32_t first_frame;
    uint32_t frames;
    uint64_t count;
  };
  struct GroupBuilder;
  struct Gaps;

  uint32_t OwnerOf(const Process& process);
  uint32_t ThreadOf(std::string_view comm);
  void AddStack(uint64_t hash, const SampleRecord& sample, uint32_t owner, uint32_t thread);
  fw_u64 ResolveUser(Owner& owner, uint64_t pc);
  void RequestJit(Owner& owner);
  fw_u64 ResolveFile(const Owner& owner, fw_u64 frame);
  std::vector<ProgramStackEnds> ProgramEnds() const;
  void AddToGroup(const Stack& stack, GroupBuilder& group);
  void ReportGaps(const Gaps& gaps, ClosedWindow* closed) const;

  WindowOptions options_;
  symbolizer::Symbolizer& symbolizer_;
  std::vector<Owner> owners_;
  absl::flat_hash_map<uint64_t, uint32_t> owner_of_incarnation_;
  std::vector<std::string> threads_;
  base::StringMap<uint32_t> thread_index_;
  std::vector<Stack> stacks_;
  absl::flat_hash_map<uint64_t, uint32_t> stack_of_hash_;
  std::vector<fw_u64> frames_;
  absl::flat_hash_set<symbolizer::FileId> requested_;  // files of FILE frames
  std::array<uint64_t, FW_STACK_END_COUNT> stack_ends_{};
  uint64_t samples_ = 0;
  uint64_t stacks_full_ = 0;
};

}  // namespace firewatch::agent
