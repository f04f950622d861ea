// SPDX-License-Identifier: Apache-2.0
// Windows on their way to the server. Every window is written to the spool on disk first (one file
// per window, renamed into place), then sent, then deleted when the server has acknowledged it.
// Without a server the spool grows to its bound, then the oldest window is dropped and counted.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "proto/ingest.pb.h"

namespace firewatch::agent {

struct UploaderOptions {
  std::string server = "127.0.0.1:7070";
  std::string spool_directory;  // made if missing; holds agent_id too
  uint64_t spool_max_bytes = uint64_t{256} << 20;
  // Of windows that the disk does not take.
  uint64_t memory_max_bytes = uint64_t{8} << 20;
  int backoff_min_ms = 500;  // doubled per failure, jitter ±50 %
  int backoff_max_ms = 30'000;
  int rpc_timeout_ms = 15'000;
};

struct UploaderStatus {
  bool connected = false;
  std::string last_error;  // "" when the last call succeeded
  uint64_t spooled_windows = 0;
  uint64_t spooled_bytes = 0;
  uint64_t uploaded_windows = 0;
  uint64_t dropped_windows = 0;
};

// Submit from one thread; sending runs on a thread of its own. The destructor stops it; what is
// not sent stays in the spool for the next start.
class Uploader {
 public:
  static absl::StatusOr<std::unique_ptr<Uploader>> Start(UploaderOptions options,
                                                         base::MetricsRegistry& metrics);
  virtual ~Uploader() = default;

  // Fills in agent_id, sequence and protocol_version, writes the window to the spool and wakes the
  // sender. The window is safe against a crash of the agent once this returns OK. When the disk
  // refuses it, a few windows are kept in memory and sent from there: the error says so, or that
  // the window was dropped; either way it must not be submitted again.
  virtual absl::Status Submit(ingest::UploadWindowRequest window) = 0;

  // Waits until everything spooled is acknowledged or the time is over; true when empty.
  virtual bool Flush(int timeout_ms) = 0;

  virtual UploaderStatus Status() const = 0;
};

}  // namespace firewatch::agent
