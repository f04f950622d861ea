// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/file_records.h"

#include <utility>

namespace firewatch::symbolizer {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;
constexpr int kMaxAttempts = 8;

constexpr const char* kStateNames[] = {"new",        "pending",    "ready",
                                       "no_symbols", "unreadable", "refused"};

// The counter that the agent's list of losses gives this name (agent/core/losses.h).
base::Counter& LossCounter(base::MetricsRegistry& metrics, const char* reason) {
  return metrics.AddCounter("firewatch_agent_lost_total",
                            "What was lost between a timer's tick and an acknowledged upload.",
                            {{"reason", reason}});
}

NameReason DefaultReason(FileState state) {
  switch (state) {
    case FileState::kNew:
    case FileState::kPending:
      return NameReason::kPending;
    case FileState::kReady:
      return NameReason::kNone;
    case FileState::kNoSymbols:
      return NameReason::kNoSymbols;
    case FileState::kUnreadable:
      return NameReason::kNoFile;
    case FileState::kRefused:
      return NameReason::kRefused;
  }
  return NameReason::kPending;
}

}  // namespace

FileRecords::FileRecords(const base::Clock& clock, base::MetricsRegistry& metrics)
    : clock_(clock),
      ids_(0, Hash{&files_}, Equal{&files_}),
      refused_loss_(LossCounter(metrics, "file_refused")),
      unreadable_loss_(LossCounter(metrics, "file_unreadable")) {
  for (const char* state : kStateNames) {
    states_.push_back(&metrics.AddCounter(
        "firewatch_symbol_files_total", "Files that have come into a state.", {{"state", state}}));
  }
}

uint32_t FileRecords::Intern(const FileIdentity& file) {
  const auto known = ids_.find(file);
  if (known != ids_.end()) return *known;
  auto id = static_cast<uint32_t>(files_.size());
  if (free_ids_.empty()) {
    files_.emplace_back();
  } else {
    id = free_ids_.back();
    free_ids_.pop_back();
  }
  FileRecord& record = files_[id];
  record = FileRecord();
  record.identity = file;
  record.build_id = file.build_id.ToHex();
  ids_.insert(id);
  states_[static_cast<size_t>(FileState::kNew)]->Add();
  return id;
}

std::vector<uint32_t> FileRecords::ForgetUnused(const FileSet& kept,
                                                absl::FunctionRef<bool(uint32_t)> busy) {
  free_ids_.insert(free_ids_.end(), resting_ids_.begin(), resting_ids_.end());
  resting_ids_.clear();
  for (uint32_t id = 0; id < files_.size(); ++id) {
    FileRecord& record = files_[id];
    if (record.forgotten) continue;
    const bool unused =
        !kept.contains(FileId{id}) && record.state != FileState::kPending && !busy(id);
    if (!std::exchange(record.unused, unused) || !unused) continue;
    ids_.erase(id);
    record = FileRecord();
    record.forgotten = true;
    resting_ids_.push_back(id);
  }
  if (!resting_ids_.empty()) ForgetReasons();
  return resting_ids_;
}

// Their texts name paths and build ids.
void FileRecords::ForgetReasons() {
  absl::flat_hash_set<const char*> used;
  for (const FileRecord& record : files_) used.insert(record.reason.data());
  std::erase_if(reasons_, [&](const std::string& text) { return !used.contains(text.data()); });
}

void FileRecords::SetState(uint32_t id, FileState state, std::string_view reason) {
  SetState(id, state, DefaultReason(state), reason);
}

void FileRecords::SetState(uint32_t id, FileState state, NameReason no_names,
                           std::string_view reason) {
  FileRecord& record = files_[id];
  record.state = state;
  record.no_names = no_names;
  auto interned = reasons_.find(reason);
  if (interned == reasons_.end()) interned = reasons_.emplace(reason).first;
  record.reason = *interned;
  states_[static_cast<size_t>(state)]->Add();
  if (state == FileState::kRefused) refused_loss_.Add();
  // A file that is tried again is still one file.
  if (state == FileState::kUnreadable && record.attempts == 0) unreadable_loss_.Add();
}

void FileRecords::SetUnreadable(uint32_t id, std::string_view reason, bool may_retry) {
  SetState(id, FileState::kUnreadable, reason);
  FileRecord& record = files_[id];
  ++record.attempts;
  record.retry_at_ns = may_retry && record.attempts < kMaxAttempts
                           ? clock_.MonotonicNs() + (kSecond << record.attempts)
                           : kNever;
}

}  // namespace firewatch::symbolizer
