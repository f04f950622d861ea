// SPDX-License-Identifier: Apache-2.0
#include "server/debuginfo/debuginfo.h"

#include <array>
#include <utility>

#include "base/logging.h"
#include "base/status.h"

namespace firewatch::server {
namespace {

using symbolizer::BuildId;

constexpr int64_t kRetryMs = 60'000;
constexpr size_t kMaxOffered = 65'536;

}  // namespace

std::string_view NamesStateText(NamesState state) {
  constexpr std::array<std::string_view, 8> kTexts = {
      "unknown", "building", "ready", "no_symbols", "mismatch", "refused", "over_budget", "failed"};
  return kTexts[static_cast<size_t>(state)];
}

DebugInfo::DebugInfo(FileStore& files, CommonFiles& common, NameSource& source,
                     BinaryRegistry& binaries, const base::Clock& clock,
                     base::MetricsRegistry& metrics)
    : files_(files),
      common_(common),
      source_(source),
      binaries_(binaries),
      clock_(clock),
      accepted_(metrics.AddCounter("firewatch_debuginfo_files_total",
                                   "Debug information files taken over or refused.",
                                   {{"result", "accepted"}})),
      refused_(metrics.AddCounter("firewatch_debuginfo_files_total",
                                  "Debug information files taken over or refused.",
                                  {{"result", "refused"}})) {}

absl::Status DebugInfo::Accept(IncomingFile& file, const BuildId& id, FileKind kind,
                               FileSource source) {
  const absl::StatusOr<IdentifiedFile> found = source_.Identify(file.fd());
  absl::Status status = found.status();
  if (found.ok() && found->id != id) {
    status =
        base::FailedPrecondition("the file has build id {}, not {}", found->id.ToHex(), id.ToHex());
  }
  if (found.ok() && found->is_common) kind = FileKind::kCommon;
  if (status.ok()) status = files_.Publish(file, id, kind, source);
  if (!status.ok()) {
    refused_.Add();
    return status;
  }
  accepted_.Add();
  if (kind == FileKind::kCommon) {
    for (const BuildId& waiting : common_.WaitingFor(id)) {
      // The next query of theirs offers those for which there is no room now.
      if (absl::IsResourceExhausted(OfferStored(waiting, /*replace=*/true))) break;
    }
    return absl::OkStatus();
  }
  status = OfferStored(id, /*replace=*/true);
  // The file is kept: a query offers it again.
  if (!status.ok()) spdlog::info("index of {}: {}", id.ToHex(), base::ToString(status));
  return absl::OkStatus();
}

absl::Status DebugInfo::OfferStored(const BuildId& id, bool replace) {
  NameFiles files{.executable = files_.OpenFile(id, FileKind::kExecutable),
                  .debug = files_.OpenFile(id, FileKind::kDebug)};
  if (!files.executable.valid() && !files.debug.valid()) {
    return base::NotFound("no file of build id {}", id.ToHex());
  }
  return source_.Offer(id, std::move(files), replace);
}

bool DebugInfo::MayRetry(const BuildId& id) {
  const int64_t now_ms = clock_.Now().unix_ms();
  base::MutexLock lock(mutex_);
  if (offered_ms_.size() > kMaxOffered) offered_ms_.clear();
  const auto [it, is_new] = offered_ms_.try_emplace(id, now_ms);
  if (!is_new && now_ms - it->second < kRetryMs) return false;
  it->second = now_ms;
  return true;
}

std::shared_ptr<const BinaryNames> DebugInfo::NamesOf(const BuildId& id, NamesState* state,
                                                      std::string* reason) {
  auto names = source_.Find(id, state, reason);
  if (names != nullptr) files_.NoteUse(id);
  if (names != nullptr && names->has_lines()) {
    if (common_.NoteUse(id) && MayRetry(id)) (void)OfferStored(id, /*replace=*/true);
    return names;
  }
  if (*state == NamesState::kBuilding) return names;
  if ((*state == NamesState::kUnknown || *state == NamesState::kFailed) && files_.Has(id)) {
    if (MayRetry(id) && OfferStored(id, /*replace=*/false).ok()) *state = NamesState::kBuilding;
    return names;
  }
  if (want_) want_(id);
  return names;
}

NamesState DebugInfo::StateOf(const BuildId& id, std::string* reason, bool* has_lines) const {
  NamesState state = NamesState::kUnknown;
  const auto names = source_.Find(id, &state, reason);
  *has_lines = names != nullptr && names->has_lines();
  return state;
}

DebugInfoEntry DebugInfo::EntryOf(const BuildId& id) const {
  DebugInfoEntry entry{.id = id};
  entry.state = StateOf(id, &entry.reason, &entry.has_lines);
  entry.missing_common = common_.MissingOf(id);
  if (const auto record = binaries_.Find(id.ToHex(), "")) entry.path = record->path;
  return entry;
}

std::vector<DebugInfoEntry> DebugInfo::List() const {
  std::vector<DebugInfoEntry> entries;
  for (const StoredFile& file : files_.List()) {
    if (entries.empty() || entries.back().id != file.id) entries.push_back(EntryOf(file.id));
    entries.back().files.push_back(file);
  }
  return entries;
}

absl::Status DebugInfo::Delete(const BuildId& id) {
  if (files_.Remove(id) > 0) return absl::OkStatus();
  return base::NotFound("no debug information of build id {} is kept here", id.ToHex());
}

}  // namespace firewatch::server
