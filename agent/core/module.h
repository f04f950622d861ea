// SPDX-License-Identifier: Apache-2.0
// The seam between the agent and what it does: the profiler, the network probe, the firewall and
// whatever comes are modules. How to write one: ARCHITECTURE.md. The host (module_host.h) loads,
// starts, stops and reconfigures each by itself; the governor (governor.h) keeps it within its
// share of the agent's budget; a module that fails takes nobody else down.
//
// Threads: all calls come from the host's thread, one at a time, unless said otherwise. A module
// may have threads of its own from Start to Stop; each has a ThreadMeter::Scope on its stack.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "agent/core/config_node.h"
#include "agent/core/process_directory.h"
#include "agent/core/thread_meter.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "proto/ingest.pb.h"
#include "transport/http_server.h"

namespace firewatch::agent {

// A hook or a feature of the kernel that a module uses, as it is on this machine now.
struct ModuleNeed {
  std::string name;      // "tracepoint tcp/tcp_retransmit_skb"
  bool required = true;  // without it the module does not start; else one signal is missing
  bool available = false;
  std::string detail;  // what was found, or the error
  std::string remedy;  // how to mend it; may be ""
};

struct ModuleNeeds {
  std::string bpf_object;  // "bpf/network.bpf.c"; "" for none
  std::vector<ModuleNeed> needs;
};

enum class ModuleState : uint8_t { kActive, kDegraded, kOff };

// "active", "degraded", "off".
constexpr std::string_view ModuleStateName(ModuleState state) {
  return state == ModuleState::kActive ? "active" : state == ModuleState::kOff ? "off" : "degraded";
}

struct ModuleReport {
  ModuleState state = ModuleState::kActive;
  std::string why;  // one line; "" when active
  // For /status: a JSON object, "" for none. At most a few kilobytes.
  std::string details_json = {};
};

// Totals since the module's first Start: they never go down, also not over a Stop.
struct ModuleUsage {
  // Of threads that are not in context.threads (a library's), and of other work in this process.
  uint64_t cpu_ns = 0;
  // Work that comes in lumps and is spread over ten minutes: building tables and indexes, in
  // helper processes, too. Not part of cpu_ns.
  uint64_t building_cpu_ns = 0;
  // The part of it that was done by threads in context.threads: they are not charged twice.
  uint64_t building_in_threads_ns = 0;
  // Run time of its BPF programs as the kernel counts it (bpf_prog_info.run_time_ns). It grows only
  // while the kernel keeps statistics; the host switches them on for a second now and then.
  uint64_t bpf_run_ns = 0;
  // What that time grows with (samples, connections, packets), in all; 0: not known. When it comes
  // much faster or slower than while the kernel counted, the host has it count again at once.
  uint64_t kernel_events = 0;
  // Now, not since the start: what the kernel charges for its maps, and its heap as far as the
  // module knows it.
  uint64_t map_bytes = 0;
  uint64_t heap_bytes = 0;
};

// What a module may use, from Start until Stop has returned. Everything in it may be used from any
// thread.
struct ModuleContext {
  // Names begin with firewatch_NAME_. A metric lives as long as the agent and is there once:
  // what a callback reads must be owned by it (a shared_ptr), for it outlives a Stop.
  base::MetricsRegistry& metrics;
  ProcessDirectory& processes;
  const base::Clock& clock;
  ThreadMeter& threads;  // the module's own
  std::string node;
  // A directory of the module's own that exists, mode 0700, kept over restarts.
  std::string state_directory;
  // The module's share of the agent's memory: maps and heap together.
  uint64_t memory_limit_bytes = 0;
  // What the kernel charges for the maps of all other modules together, now.
  std::function<uint64_t()> map_bytes_of_others;
  // The user has given --budget: what he has also asked for explicitly may then be lowered.
  bool explicit_budget = false;
  // On the same path and with the same care as profiles: spooled, sent, acknowledged. Fill in node,
  // start_unix_ns, end_unix_ns and what is sent. The error says what did not reach the spool; it
  // must not be submitted again.
  std::function<absl::Status(ingest::UploadWindowRequest)> upload;
};

class Module {
 public:
  virtual ~Module() = default;

  // --- what it is: any thread, at any time, also when it was never started ---

  // Its name in --modules, in the list of states, and of its section in the file. Lower case.
  virtual std::string_view name() const = 0;
  // What it uses of the kernel, tried out now; for `firewatch doctor`. Must not leave anything.
  virtual ModuleNeeds Needs() const = 0;
  // Its part of the agent's CPU and memory, relative to those of the others that run.
  virtual double BudgetWeight() const { return 1; }
  // False: the governor may lower its detail, never stop it (a firewall).
  virtual bool MaySwitchOff() const { return true; }
  // Whether it runs when --modules does not say.
  virtual bool OnByDefault() const { return true; }

  // --- configuration ---

  // Whether Start and Reconfigure would take this section. Called for the whole file before
  // anything changes. "FILE:LINE: why", as ConfigReader says it.
  virtual absl::Status CheckConfig(const ConfigSection& section) const = 0;
  // Whether a section names files: then a reload reaches Reconfigure although the section is the
  // same.
  virtual bool NamesFiles(const ConfigSection& /*section*/) const { return false; }

  // --- its life: Start, any number of Reconfigure, SetDetail, CheckHealth, Usage, Stop, again ---

  // Loads, attaches, starts threads; takes a second at most. On an error everything is as before.
  // The state is then "off: why". InvalidArgument, PermissionDenied, FailedPrecondition,
  // Unimplemented, NotFound: until the next reload; other codes are tried again with backoff.
  // `section` was accepted by CheckConfig; copy it to keep it. `context` outlives Stop.
  virtual absl::Status Start(const ConfigSection& section, ModuleContext& context) = 0;
  // A reload has changed its section. On an error the old settings stay in force. Unimplemented: it
  // cannot do that while it runs, the host stops and starts it.
  virtual absl::Status Reconfigure(const ConfigSection& section) = 0;
  // Detaches, ends its threads, delivers what it holds. What must outlive the agent (pinned links)
  // stays. Called after every successful Start.
  virtual void Stop() = 0;
  // An error: it does not work any more (its maps are gone, its thread has ended). The host stops
  // it and starts it again with backoff. Every few seconds, so it must be cheap.
  virtual absl::Status CheckHealth() { return absl::OkStatus(); }
  virtual ModuleUsage Usage() const = 0;

  // --- detail, for the governor ---

  // Levels that work: 0 is everything, DetailLevels() - 1 the least. Off is one more, and Stop.
  virtual int DetailLevels() const { return 1; }
  // "19 Hz", "without histograms": for the log and the page. Any thread, between Start and Stop.
  virtual std::string DetailText(int /*level*/) const { return "everything"; }
  // Between Start and Stop; may take effect a moment later. A Start begins with level 0 in force.
  virtual void SetDetail(int /*level*/) {}

  // --- any thread, between Start and Stop (the host waits for these before it calls Stop) ---

  virtual ModuleReport Report() const = 0;
  // Whether this request for reading is answered only to those who bear the agent's token
  // (write_token.h), like every one that changes something.
  virtual bool NeedsToken(const transport::HttpRequest& /*request*/) const { return false; }
  // The agent's own HTTP page: nothing for a path that is not the module's. Any method; the host
  // has checked that the peer may write (loopback, or --insecure) and bounded the body.
  virtual std::optional<transport::HttpResponse> Handle(const transport::HttpRequest& /*request*/) {
    return std::nullopt;
  }
};

}  // namespace firewatch::agent
