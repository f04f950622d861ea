// SPDX-License-Identifier: Apache-2.0
// What firewatch-server was told: flags, then the YAML file of --config, then defaults. A key of
// the file is a flag without its dashes; flags win over the file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace firewatch::server {

struct ServerConfig {
  std::string data_directory;  // /var/lib/firewatch/server; else ./firewatch-data
  std::string http = "127.0.0.1:7171";
  std::string grpc = "127.0.0.1:7070";
  int64_t retention_hours = 24 * 7;               // 0: for ever
  uint64_t retention_bytes = uint64_t{10} << 30;  // 0: no bound
  std::vector<std::string> allowed_hosts;
  uint32_t max_nodes = 1'000'000;  // of one flame tree; 0: no bound
  uint32_t http_workers = 2;
  // Debug information kept for names: all files together, and one of them. 0: none is taken.
  uint64_t debuginfo_bytes = uint64_t{10} << 30;
  uint64_t debuginfo_file_bytes = uint64_t{4} << 30;
  bool insecure = false;
  std::string log_level = "info";
  std::string config_path;
  // The text of --help or --version: print it and end.
  std::string message;
};

// InvalidArgument with one line that names the flag, or the file and line.
absl::StatusOr<ServerConfig> ParseServerConfig(int argc, const char* const* argv);

}  // namespace firewatch::server
