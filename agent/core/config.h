// SPDX-License-Identifier: Apache-2.0
// What firewatch-agent was told: flags, then the YAML file of --config, then defaults. A key of the
// file is a flag without its dashes; flags win over the file.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/core/config_node.h"
#include "agent/core/events.h"
#include "profile/labels.h"

namespace firewatch::agent {

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
  std::vector<std::string> modules = {"cpu"};
  std::string replay_path;         // "" = live
  std::string record_events_path;  // "" = do not record
  bool insecure = false;
  std::string log_level = "info";
  std::string config_path;
  // The text of --help or --version: print it and end.
  std::string message;
};

// InvalidArgument with one line that names the flag, or the file, line and nearest valid key.
absl::StatusOr<AgentConfig> ParseAgentConfig(int argc, const char* const* argv);

}  // namespace firewatch::agent
