// SPDX-License-Identifier: Apache-2.0
#include "server/debuginfo/common_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <string_view>
#include <utility>

#include "base/logging.h"
#include "base/status.h"

namespace firewatch::server {
namespace {

using symbolizer::BuildId;

constexpr std::string_view kUsedSuffix = ".used";

}  // namespace

CommonFiles::CommonFiles(std::string directory, FileStore& files, base::MetricsRegistry& metrics)
    : directory_(std::move(directory)),
      files_(files),
      forgotten_(metrics.AddCounter("firewatch_debuginfo_common_forgotten_total",
                                    "Debug files of which it is not remembered which common file "
                                    "of dwz they need, too many being so.")) {}

absl::StatusOr<std::unique_ptr<CommonFiles>> CommonFiles::Open(std::string directory,
                                                               FileStore& files,
                                                               base::MetricsRegistry& metrics) {
  auto common = std::unique_ptr<CommonFiles>(new CommonFiles(std::move(directory), files, metrics));
  std::error_code error;
  std::filesystem::create_directories(common->directory_, error);
  if (error) return base::ErrnoStatus(error.value(), "make directory " + common->directory_);
  base::MutexLock lock(common->mutex_);
  common->Load();
  common->ForgetGone();
  return common;
}

void CommonFiles::Load() {
  std::error_code error;
  for (std::filesystem::directory_iterator it(directory_, error), end;
       !error && it != end && needs_.size() < kMaxRecords; it.increment(error)) {
    const std::string file = it->path().filename().native();
    std::string_view name = file;
    const bool used = name.ends_with(kUsedSuffix);
    if (used) name.remove_suffix(kUsedSuffix.size());
    const size_t dot = name.find('.');
    if (dot == std::string_view::npos) continue;
    const Need need = {.common = BuildId::FromHex(name.substr(0, dot)), .waits = !used};
    const BuildId id = BuildId::FromHex(name.substr(dot + 1));
    if (need.common.empty() || id.empty() || needs_.contains(id)) continue;
    needs_[id] = need;
    if (need.waits) waiting_[need.common].insert(id);
  }
  if (error) spdlog::warn("list {}: {}", directory_, error.message());
}

void CommonFiles::SetWant(Want want) {
  base::MutexLock lock(mutex_);
  want_ = std::move(want);
}

std::string CommonFiles::PathOf(const BuildId& id, const Need& need) const {
  return fmt::format("{}/{}.{}{}", directory_, need.common.ToHex(), id.ToHex(),
                     need.waits ? "" : kUsedSuffix);
}

void CommonFiles::Forget(const BuildId& id) {
  const auto known = needs_.find(id);
  if (known == needs_.end()) return;
  ::unlink(PathOf(id, known->second).c_str());
  if (const auto those = waiting_.find(known->second.common); those != waiting_.end()) {
    those->second.erase(id);
    if (those->second.empty()) waiting_.erase(those);
  }
  needs_.erase(known);
}

void CommonFiles::ForgetGone() {
  std::vector<BuildId> gone;
  for (const auto& [id, need] : needs_) {
    if (!files_.Has(id)) gone.push_back(id);
  }
  for (const BuildId& id : gone) Forget(id);
}

void CommonFiles::Remember(const BuildId& id, const Need& need) {
  const auto known = needs_.find(id);
  if (known != needs_.end() && known->second.common == need.common &&
      known->second.waits == need.waits) {
    return;
  }
  Forget(id);
  if (needs_.size() >= kMaxRecords) ForgetGone();
  if (needs_.size() >= kMaxRecords) return forgotten_.Add();
  needs_[id] = need;
  if (need.waits) waiting_[need.common].insert(id);
  // Read after a restart alone: that it cannot be made is no reason to fail.
  const base::UniqueFd made(::open(PathOf(id, need).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

base::UniqueFd CommonFiles::OpenFor(const BuildId& common, const BuildId& needed_by) {
  base::MutexLock lock(mutex_);
  // With the lock: whoever brings the file asks for those that wait after it is there.
  base::UniqueFd fd = files_.OpenFile(common, FileKind::kCommon);
  Remember(needed_by, {.common = common, .waits = !fd.valid()});
  if (fd.valid()) {
    files_.NoteUse(common);
  } else if (want_) {
    want_(common);
  }
  return fd;
}

std::vector<BuildId> CommonFiles::WaitingFor(const BuildId& common) {
  base::MutexLock lock(mutex_);
  const auto found = waiting_.find(common);
  if (found == waiting_.end()) return {};
  return {found->second.begin(), found->second.end()};
}

bool CommonFiles::NoteUse(const BuildId& id) {
  base::MutexLock lock(mutex_);
  const auto known = needs_.find(id);
  if (known == needs_.end()) return false;
  const Need& need = known->second;
  if (files_.HasCommon(need.common)) {
    files_.NoteUse(need.common);
    return need.waits;
  }
  if (want_) want_(need.common);
  return false;
}

BuildId CommonFiles::MissingOf(const BuildId& id) {
  base::MutexLock lock(mutex_);
  const auto known = needs_.find(id);
  return known != needs_.end() && known->second.waits ? known->second.common : BuildId();
}

}  // namespace firewatch::server
