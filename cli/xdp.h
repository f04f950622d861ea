// SPDX-License-Identifier: Apache-2.0
// `firewatch xdp`: the firewall of a running agent.
#pragma once

#include <cstdint>
#include <string>

namespace firewatch::cli {

struct XdpOptions {
  std::string agent = "127.0.0.1:7172";
  std::string token_file;  // "": that of the agent on this machine (agent/core/write_token.h)
  std::string file;        // load: rules
  std::string interface;   // "": all, where that makes sense
  std::string mode = "auto";
  std::string confirm_within;  // "60s"; "": at once and for good
  bool dry_run = false;
  bool allow_default_route = false;
  bool replace = false;
  bool json = false;
  uint32_t limit = 100;  // events
};

// Exit codes: 0, or 1 with the agent's words on standard error.
int RunXdpLoad(const XdpOptions& options);
int RunXdpList(const XdpOptions& options);
int RunXdpStats(const XdpOptions& options);
int RunXdpEvents(const XdpOptions& options);
int RunXdpConfirm(const XdpOptions& options);
int RunXdpUnload(const XdpOptions& options);

}  // namespace firewatch::cli
