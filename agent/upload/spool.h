// SPDX-License-Identifier: Apache-2.0
// Windows that wait on disk, oldest first: a directory with one file per window, named by its
// sequence number, and beside them:
//   agent_id   16 random bytes in hex, made once: names this agent for the server
//   sequence   the highest sequence number that may have been used
//   lock       held while an agent uses the directory
//
// A number is never used twice, also after a crash: `sequence` runs ahead of what is in use, in
// blocks, and is set back to the exact value by a clean end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/metrics.h"
#include "base/mutex.h"
#include "base/unique_fd.h"

namespace firewatch::agent {

// Any thread. Files are read and written without the lock, so that a slow disk holds up nobody who
// only asks for sizes; a sequence number belongs to the thread that took it until Put returns.
class Spool {
 public:
  // Makes the directory (mode 0700), takes the lock, removes half-written files and finds the
  // windows of earlier runs. FailedPrecondition when another agent holds the directory. `metrics`
  // must outlive the spool.
  static absl::StatusOr<std::unique_ptr<Spool>> Open(std::string directory, uint64_t max_bytes,
                                                     base::MetricsRegistry& metrics);
  ~Spool();
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  // 16 bytes.
  const std::string& agent_id() const { return agent_id_; }

  // A number that no window of this agent had before.
  absl::StatusOr<uint64_t> TakeSequence() ABSL_LOCKS_EXCLUDED(mutex_);

  // On OK the window is on disk (file and directory synced). Older windows are dropped and counted
  // to stay within the bound. ResourceExhausted: the disk is full, or the window alone is larger
  // than the bound.
  absl::Status Put(uint64_t sequence, std::string_view payload) ABSL_LOCKS_EXCLUDED(mutex_);

  // The window that has waited longest.
  std::optional<uint64_t> Oldest() const ABSL_LOCKS_EXCLUDED(mutex_);

  // The payload. A damaged file is removed and counted (DataLoss); NotFound when it was dropped
  // meanwhile.
  absl::StatusOr<std::string> Read(uint64_t sequence) ABSL_LOCKS_EXCLUDED(mutex_);

  // The window is no longer needed.
  void Remove(uint64_t sequence) ABSL_LOCKS_EXCLUDED(mutex_);

  uint64_t windows() const ABSL_LOCKS_EXCLUDED(mutex_);
  uint64_t bytes() const ABSL_LOCKS_EXCLUDED(mutex_);  // of the files
  uint64_t dropped() const { return dropped_.value(); }

 private:
  Spool(std::string directory, uint64_t max_bytes, base::MetricsRegistry& metrics);
  absl::Status Load();
  absl::Status LoadFiles();
  absl::Status LoadAgentId();
  std::optional<std::string> ReadAgentId() const;
  std::optional<uint64_t> ReadSequence() const;
  absl::Status WriteAtomically(const std::string& name, std::string_view head,
                               std::string_view body) const;
  absl::Status StoreSequence(uint64_t sequence) const;
  absl::Status Reserve() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string PathOf(std::string_view name) const;
  void Forget(uint64_t sequence) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropBeyondBound() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ShowSize() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string directory_;
  const uint64_t max_bytes_;
  std::string agent_id_;  // set by Load, constant afterwards
  base::UniqueFd lock_;   // flock
  base::UniqueFd directory_fd_;

  mutable base::Mutex mutex_;
  std::map<uint64_t, uint64_t> files_ ABSL_GUARDED_BY(mutex_);  // sequence -> bytes
  uint64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t last_sequence_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t reserved_sequence_ ABSL_GUARDED_BY(mutex_) = 0;  // what `sequence` holds

  base::Counter& dropped_;
  base::Counter& damaged_;
  base::Gauge& windows_gauge_;
  base::Gauge& bytes_gauge_;
};

}  // namespace firewatch::agent
