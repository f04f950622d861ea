// SPDX-License-Identifier: Apache-2.0
// Where samples come from. The best source that this machine allows is chosen at start
// (OpenSource in profiler.cc); everything behind it sees the same records whatever it is, and the
// kind and the reason are shown wherever a profile is.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "agent/core/events.h"
#include "agent/cpu/sample.h"
#include "agent/cpu/table_memory.h"
#include "bpf/include/losses.h"

namespace firewatch::agent {

enum class SourceKind : uint8_t {
  kEbpf,    // BPF programs unwind in the kernel: the whole machine, all of it
  kPerf,    // fallback: the kernel copies registers and stack, libunwind unwinds here
  kPtrace,  // fallback: threads are stopped one after the other; own processes only
};

constexpr std::string_view SourceKindName(SourceKind kind) {
  switch (kind) {
    case SourceKind::kEbpf:
      return "ebpf";
    case SourceKind::kPerf:
      return "perf";
    case SourceKind::kPtrace:
      return "ptrace";
  }
  return "?";
}

// How long the watched threads stood still because of us (kPtrace; else all zeros).
struct PauseStats {
  uint64_t stops = 0;
  uint64_t median_ns = 0;
  uint64_t max_ns = 0;
  uint64_t total_ns = 0;
  double share = 0;  // total of the pauses / total CPU time of the sampled threads
};

// One home thread, the one that calls Drain.
class SampleSource {
 public:
  using SampleCallback = absl::FunctionRef<void(const SampleRecord&)>;
  using EventSink = std::function<void(const ProcessEvent&)>;

  virtual ~SampleSource() = default;

  virtual SourceKind kind() const = 0;
  // What this source cannot do, for the reader: "stacks deeper than 16384 bytes are cut; …".
  virtual std::string limits() const { return ""; }

  // Readable when Drain has something to do. For poll or an outer epoll set; owned by the source.
  virtual int WaitFd() const = 0;

  // True for a source that hears of processes by itself: it then calls `sink` during Drain and
  // Stop, in time order with its samples. False (and `sink` is dropped): open a SideBand.
  virtual bool DeliverEventsTo(EventSink /*sink*/) { return false; }

  // Hands every sample that waits to `callback`, nearly ordered by time. Never blocks. Call it also
  // when a window closes. Returns the number of samples.
  virtual size_t Drain(SampleCallback callback) = 0;

  // Ends sampling, then hands out everything that was taken before: a stop loses nothing.
  virtual size_t Stop(SampleCallback callback) = 0;

  // Totals since it was opened, indexed by enum fw_loss.
  virtual std::array<uint64_t, FW_LOSS_COUNT> Losses() const = 0;

  virtual uint32_t hz() const = 0;
  // Another rate from now on. Hands every sample of the old rate to `callback` first; those of the
  // new one come with the next Drain, so that the caller can close a window in between. On an error
  // the old rate stays. Unimplemented: this source cannot change it.
  virtual absl::Status SetHz(uint32_t /*hz*/, SampleCallback /*callback*/) {
    return absl::UnimplementedError("this source keeps its sampling rate");
  }
  virtual bool hardware_cycles() const { return false; }  // else cpu-clock
  virtual size_t cpu_count() const = 0;                   // CPUs that are being sampled now
  virtual uint64_t map_bytes() const { return 0; }  // what the kernel charges for our BPF maps
  // Where unwind tables go when the kernel side unwinds by them; else nullptr. Lives as long as the
  // source.
  virtual TableMemory* table_memory() { return nullptr; }
  // Our BPF maps by name, each with what the kernel charges for it.
  virtual std::vector<std::pair<std::string, uint64_t>> MapSizes() const { return {}; }
  virtual PauseStats Pauses() const { return {}; }
  // Descriptors of our BPF programs, as long as the source lives.
  virtual std::vector<int> ProgramFds() const { return {}; }
};

}  // namespace firewatch::agent
