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

using symbolizer::BuildId;

CommonFiles::CommonFiles(std::string directory, FileStore& files, base::MetricsRegistry& metrics)
    : directory_(std::move(directory)),
      files_(files),
      forgotten_(metrics.AddCounter(
          "firewatch_debuginfo_waiting_forgotten_total",
          "Files that wait for a common file of dwz and are not remembered, too many being so.")) {}

absl::StatusOr<std::unique_ptr<CommonFiles>> CommonFiles::Open(std::string directory,
                                                               FileStore& files,
                                                               base::MetricsRegistry& metrics) {
  auto common = std::unique_ptr<CommonFiles>(new CommonFiles(std::move(directory), files, metrics));
  std::error_code error;
  std::filesystem::create_directories(common->directory_, error);
  if (error) return base::ErrnoStatus(error.value(), "make directory " + common->directory_);
  base::MutexLock lock(common->mutex_);
  for (std::filesystem::directory_iterator it(common->directory_, error), end;
       !error && it != end && common->count_ < kMaxWaiting; it.increment(error)) {
    const std::string name = it->path().filename().native();
    const size_t dot = name.find('.');
    if (dot == std::string::npos) continue;
    const BuildId file = BuildId::FromHex(std::string_view(name).substr(0, dot));
    const BuildId id = BuildId::FromHex(std::string_view(name).substr(dot + 1));
    if (file.empty() || id.empty()) continue;
    if (common->waiting_[file].insert(id).second) ++common->count_;
  }
  if (error) return base::ErrnoStatus(error.value(), "list " + common->directory_);
  return common;
}

void CommonFiles::SetWant(Want want) {
  base::MutexLock lock(mutex_);
  want_ = std::move(want);
  if (!want_) return;
  for (const auto& [common, ids] : waiting_) want_(common);  // since before a restart
}

std::string CommonFiles::PathOf(const BuildId& common, const BuildId& id) const {
  return fmt::format("{}/{}.{}", directory_, common.ToHex(), id.ToHex());
}

base::UniqueFd CommonFiles::OpenFor(const BuildId& common, const BuildId& wanted_by) {
  base::MutexLock lock(mutex_);
  // With the lock: whoever brings the file asks for those that wait after it is there.
  base::UniqueFd fd = files_.OpenFile(common, FileKind::kCommon);
  if (fd.valid()) {
    files_.NoteUse(common);
    return fd;
  }
  if (count_ >= kMaxWaiting) {
    forgotten_.Add();
  } else if (waiting_[common].insert(wanted_by).second) {
    ++count_;
    // Only a restart needs it: then the file is offered again by hand.
    base::UniqueFd made(
        ::open(PathOf(common, wanted_by).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  }
  if (want_) want_(common);
  return {};
}

void CommonFiles::Forget(const BuildId& common, const BuildId& id) {
  ::unlink(PathOf(common, id).c_str());
  --count_;
}

std::vector<BuildId> CommonFiles::TakeWaiting(const BuildId& common) {
  base::MutexLock lock(mutex_);
  const auto found = waiting_.find(common);
  if (found == waiting_.end()) return {};
  std::vector<BuildId> ids(found->second.begin(), found->second.end());
  for (const BuildId& id : ids) Forget(common, id);
  waiting_.erase(found);
  return ids;
}

}  // namespace firewatch::server
