// SPDX-License-Identifier: Apache-2.0
// What firewatch-agent was told: flags, then the YAML file of --config, then defaults. A key of the
// file is a flag without its dashes; flags win over the file. A module's own settings stand in a
// section of its name; those of `cpu` may also stand outside, as they always did:
//
//   server: collector:7070
//   budget: 2
//   cpu:
//     hz: 49
//   network:
//     top: 50
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/core/config_node.h"
#include "agent/core/events.h"
#include "profile/labels.h"

namespace firewatch::agent {

// A module that can be named in --modules and have a section.
struct KnownModule {
  std::string name;
  bool on_by_default = true;
};

struct AgentConfig {
  std::string server = "127.0.0.1:7070";
  std::string http = "127.0.0.1:7172";
  uint32_t hz = 19;              // 1..999
  std::string sampler = "auto";  // auto, ebpf, perf, ptrace
  uint64_t window_ms = 10'000;   // 100 ms .. 1 h
  std::string spool_directory;   // /var/lib/firewatch/agent; without root below $HOME
  uint64_t spool_max_bytes = uint64_t{256} << 20;
  uint64_t memory_limit_bytes = uint64_t{64} << 20;  // RssAnon and charged BPF maps
  std::string cache_directory;   // /var/cache/firewatch; without root below $HOME
  bool lines = true;             // names with files, lines and inlined functions
  std::string debuginfo_server;  // HTTP; debug information is sent there; "" = never
  profile::LabelSet labels;      // --label k=v, added to every profile
  std::string service;           // "" = discover
  std::string node;              // host name
  std::vector<std::string> cgroups;
  std::vector<Pid> pids;
  std::vector<std::string> modules;  // those that run
  std::vector<std::string> known_modules;
  std::string replay_path;         // "" = live
  std::string record_events_path;  // "" = do not record
  // Of the machine's CPU time, for all modules together.
  double budget_percent = 1;
  bool explicit_budget = false;
  // By module. That of `cpu` has its flags in it and the keys outside the section; a flag's place
  // is its name.
  std::map<std::string, ConfigSection> sections;
  // What was given, by key, but for sections and what belongs to `cpu`: a reload is compared by it.
  std::map<std::string, std::vector<std::string>> given;
  bool insecure = false;
  std::string log_level = "info";
  std::string config_path;
  // The text of --help or --version: print it and end.
  std::string message;
};

// InvalidArgument with one line that names the flag, or the file, line and nearest valid key.
// What is inside of a module's section is that module's to check, but for `cpu`.
absl::StatusOr<AgentConfig> ParseAgentConfig(int argc, const char* const* argv,
                                             std::span<const KnownModule> modules);

}  // namespace firewatch::agent
