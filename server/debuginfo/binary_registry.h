// SPDX-License-Identifier: Apache-2.0
// What agents tell of binaries whose frames lack names or lines: the executable segments (a debug
// file alone knows virtual addresses, samples carry file offsets) and the reason. By build id, or
// by path where there is none. Kept in an append-only file (docs/formats.md, "Binaries"): profiles
// that are stored today may be named next month, when their agents are gone.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/metrics.h"
#include "base/mutex.h"
#include "base/unique_fd.h"
#include "proto/ingest.pb.h"
#include "symbolizer/elf/elf_reader.h"

namespace firewatch::server {

struct BinaryRecord {
  std::string build_id;                          // lower-case hex; "" if none
  std::string path;                              // as the agent that told it first saw it
  std::vector<symbolizer::ElfSegment> segments;  // executable ones, by offset
  ingest::NameReason reason = ingest::NAME_REASON_NONE;
  ingest::NameReason lines_reason = ingest::NAME_REASON_NONE;
  std::string detail;
};

// Empty optional: refused (a build id that is none, a path too long, segments that overlap or wrap
// around, too many). Control characters and broken UTF-8 in texts are replaced.
std::optional<BinaryRecord> CheckBinaryInfo(const ingest::BinaryInfo& info);

// Any thread.
class BinaryRegistry {
 public:
  static constexpr size_t kMaxRecords = 65'536;

  // Reads `path` as far as it is whole; what follows damage is dropped with a warning and a
  // counter. "" keeps nothing on disk. `clock` and `metrics` must outlive it.
  static absl::StatusOr<std::unique_ptr<BinaryRegistry>> Open(const std::string& path,
                                                              const base::Clock& clock,
                                                              base::MetricsRegistry& metrics);

  // On disk when it returns, as far as segments are new; a reason that changed follows within ten
  // minutes. Disk errors are counted and logged: the next window tells the same again.
  void Note(const google::protobuf::RepeatedPtrField<ingest::BinaryInfo>& binaries)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // nullptr: nobody told. With an empty build id by path. One lock; a record never changes.
  std::shared_ptr<const BinaryRecord> Find(std::string_view build_id, std::string_view path) const
      ABSL_LOCKS_EXCLUDED(mutex_);
  size_t size() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Entry {
    std::shared_ptr<const BinaryRecord> record;
    int64_t written_ms = 0;
    uint64_t seen = 0;
  };
  BinaryRegistry(std::string path, const base::Clock& clock, base::MetricsRegistry& metrics);
  absl::Status Load() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Rewrite() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether the log gets a line; `*sync`: it holds segments that no line had.
  bool Take(BinaryRecord record, int64_t now_ms, bool* sync) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Forget() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string path_;
  const base::Clock& clock_;
  base::Counter& refused_;
  base::Counter& write_errors_;
  base::Counter& forgotten_;
  mutable base::Mutex mutex_;
  base::StringMap<Entry> entries_ ABSL_GUARDED_BY(mutex_);
  uint64_t seen_ ABSL_GUARDED_BY(mutex_) = 0;
  base::UniqueFd log_ ABSL_GUARDED_BY(mutex_);
  uint64_t log_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Records of a log, up to the first damage. `*whole_bytes`: where that is. For Load and its fuzz
// target.
std::vector<BinaryRecord> ReadBinaryLog(std::string_view bytes, size_t* whole_bytes);
std::string EncodeBinaryRecord(const BinaryRecord& record);

}  // namespace firewatch::server
