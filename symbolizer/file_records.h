// SPDX-License-Identifier: Apache-2.0
// The files that a Symbolizer has met, by identity and by dense id, and the state that each is in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "symbolizer/file_identity.h"
#include "symbolizer/process/mapped_object.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::symbolizer {

inline constexpr uint64_t kNever = UINT64_MAX;
inline constexpr uint32_t kNoSlot = UINT32_MAX;

struct FileRecord {
  FileIdentity identity;
  FileState state = FileState::kNew;
  uint8_t attempts = 0;
  std::string build_id;
  uint64_t size_bytes = 0;
  NameReason no_names = NameReason::kPending;
  std::string_view reason;   // kept by FileRecords
  bool unused = false;       // at the last ForgetUnused
  bool forgotten = false;    // the id stands for no file
  uint32_t slot = kNoSlot;   // of its index (index_slots.h)
  uint64_t retry_at_ns = 0;  // another process may show the file later: kUnreadable, or for lines
  MappingHint hint;          // of the request under way
  MappingHint use_hint;      // of the last request; only with SymbolizerOptions::on_use
  int place = 0;
};

// One home thread. Records stay where they are. `clock` and `metrics` must outlive it.
class FileRecords {
 public:
  FileRecords(const base::Clock& clock, base::MetricsRegistry& metrics);
  FileRecords(const FileRecords&) = delete;  // the table of ids points into it
  FileRecords& operator=(const FileRecords&) = delete;

  // The same identity gives the same id.
  uint32_t Intern(const FileIdentity& file);
  size_t size() const { return files_.size(); }
  FileRecord& operator[](uint32_t id) { return files_[id]; }
  const FileRecord& operator[](uint32_t id) const { return files_[id]; }

  // Symbolizer::ForgetUnused. `busy` says which ids have work under way: those stay.
  std::vector<uint32_t> ForgetUnused(const FileSet& kept, absl::FunctionRef<bool(uint32_t)> busy);
  size_t kept_count() const { return ids_.size(); }

  // Counts the state. `no_names`: what the state alone says, when it is not given.
  void SetState(uint32_t id, FileState state, std::string_view reason);
  void SetState(uint32_t id, FileState state, NameReason no_names, std::string_view reason);
  // kUnreadable; `may_retry`: after a pause that grows, a few times.
  void SetUnreadable(uint32_t id, std::string_view reason, bool may_retry);

 private:
  void ForgetReasons();

  // The set of ids that is asked by identity, without a second copy of the identities.
  struct Hash {
    using is_transparent = void;
    const std::deque<FileRecord>* files;
    size_t operator()(const FileIdentity& identity) const {
      return absl::Hash<FileIdentity>()(identity);
    }
    size_t operator()(uint32_t id) const { return (*this)((*files)[id].identity); }
  };
  struct Equal {
    using is_transparent = void;
    const std::deque<FileRecord>* files;
    bool operator()(uint32_t a, uint32_t b) const { return a == b; }
    bool operator()(uint32_t a, const FileIdentity& b) const { return (*files)[a].identity == b; }
    bool operator()(const FileIdentity& a, uint32_t b) const { return a == (*files)[b].identity; }
  };

  const base::Clock& clock_;
  std::deque<FileRecord> files_;  // by id
  absl::flat_hash_set<uint32_t, Hash, Equal> ids_;
  std::vector<uint32_t> resting_ids_;  // forgotten by the last ForgetUnused
  std::vector<uint32_t> free_ids_;     // by those before
  std::set<std::string, std::less<>> reasons_;
  std::vector<base::Counter*> states_;
  base::Counter& refused_loss_;     // the same two as in bpf/include/losses.h: they go into every
  base::Counter& unreadable_loss_;  // upload, the states above do not
};

}  // namespace firewatch::symbolizer
