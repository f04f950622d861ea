// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/debug_copies.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <utility>

#include "base/status.h"
#include "symbolizer/process/debug_files.h"
#include "symbolizer/process/mapped_object.h"

namespace firewatch::symbolizer {
namespace {

constexpr int kPollMs = 200;
constexpr int kMaxCandidates = 16;
constexpr int kMaxPlaces = 8;

bool IsOf(const HelperAnswer& answer, const BuildId& id) {
  BuildId found;
  found.size = answer.id_size;
  std::copy(std::begin(answer.id), std::end(answer.id), found.bytes.begin());
  return answer.has_pseudo_id == 0 && found == id;
}

uint64_t SizeOf(int fd) {
  struct stat info{};
  return ::fstat(fd, &info) == 0 ? static_cast<uint64_t>(info.st_size) : 0;
}

}  // namespace

DebugCopies::DebugCopies(DebugCopiesOptions options, const base::Clock& clock,
                         base::MetricsRegistry& metrics)
    : options_(std::move(options)),
      queue_({.helper_path = options_.helper_path,
              .max_cpu_seconds = options_.max_cpu_seconds,
              .max_bytes = options_.max_helper_bytes},
             clock, metrics) {}

absl::StatusOr<HelperAnswer> DebugCopies::Ask(HelperOperation operation, bool is_executable,
                                              base::UniqueFd& fd, base::UniqueFd* output,
                                              const std::atomic<bool>& stop) {
  HelperJob job;
  job.operation = operation;
  (is_executable ? job.elf : job.debug) = std::move(fd);
  if (output != nullptr) job.output = std::move(*output);
  queue_.Submit(std::move(job));
  while (!stop) {
    std::vector<HelperResult> results = queue_.Poll(kPollMs);
    if (results.empty()) continue;
    HelperResult& result = results.front();
    fd = std::move(is_executable ? result.job.elf : result.job.debug);
    if (output != nullptr) *output = std::move(result.job.output);
    if (result.helper_died) return base::InvalidArgument("{}", result.failure);
    if (!result.failure.empty()) return base::Unavailable("{}", result.failure);
    switch (result.answer.status) {
      case HelperStatus::kOk:
        return result.answer;
      case HelperStatus::kNotWritten:
        return base::Unavailable("{}", result.answer.reason);
      default:
        return base::InvalidArgument("{}", result.answer.reason);
    }
  }
  return absl::CancelledError("stopped");
}

absl::StatusOr<std::vector<DebugCopies::Source>> DebugCopies::Find(const FileUse& use,
                                                                   const std::atomic<bool>& stop) {
  const MappingHint hint = {.pid = use.pid,
                            .parent_pid = use.parent_pid,
                            .map_start = use.map_start,
                            .map_end = use.map_end};
  Source file = {.is_executable = true};
  HelperAnswer facts;
  for (int place = 0, tries = 0;; ++tries) {
    auto opened = OpenMappedObject(use.file, hint, options_.proc_root, place);
    if (!opened.ok() || tries == kMaxPlaces) {
      return base::NotFound("{}: {}", use.file.path,
                            opened.ok() ? "another build" : base::Message(opened.status()));
    }
    place = opened->place + 1;
    file.fd = std::move(opened->fd);
    auto answer = Ask(HelperOperation::kIdentify, true, file.fd, nullptr, stop);
    if (!answer.ok()) return answer.status();
    if (!IsOf(*answer, use.id)) continue;
    facts = *answer;
    break;
  }
  file.id = use.id;
  file.bytes = SizeOf(file.fd.get());
  file.has_lines = (facts.flags & kHelperDwarf) != 0;
  std::vector<Source> sources;
  if (file.has_lines) {
    RETURN_IF_ERROR(AddCommonFile(use, use.file.path, facts, stop, &sources));
  }
  if (!file.has_lines) {
    ASSIGN_OR_RETURN(sources, FindDebugFile(use, facts, file.fd.get(), stop));
    if (sources.empty() && (facts.flags & kHelperSymtab) == 0) {
      return base::FailedPrecondition("{}: stripped, and no debug file is there", use.file.path);
    }
  }
  sources.push_back(std::move(file));
  return sources;
}

absl::StatusOr<std::vector<DebugCopies::Source>> DebugCopies::FindDebugFile(
    const FileUse& use, const HelperAnswer& facts, int elf, const std::atomic<bool>& stop) {
  std::vector<Source> found;
  const DebugFileQuery query = {
      .kind = DebugFileKind::kDebug, .path = use.file.path, .id = use.id, .name = facts.debuglink};
  const DebugFileRoots roots = {
      .pid = use.pid, .parent_pid = use.parent_pid, .proc_root = options_.proc_root};
  for (int place = 0, tries = 0; tries < kMaxCandidates; ++tries) {
    auto opened = OpenDebugFile(query, roots, elf, place);
    if (!opened.ok()) break;
    place = opened->place + 1;
    Source debug = {.fd = std::move(opened->fd)};
    const auto answer = Ask(HelperOperation::kIdentify, false, debug.fd, nullptr, stop);
    if (!answer.ok() && answer.status().code() != absl::StatusCode::kInvalidArgument) {
      return answer.status();
    }
    if (!answer.ok() || !IsOf(*answer, use.id)) continue;
    if ((answer->flags & (kHelperDwarf | kHelperSymtab)) == 0) continue;
    debug.id = use.id;
    debug.has_lines = (answer->flags & kHelperDwarf) != 0;
    debug.bytes = SizeOf(debug.fd.get());
    if (debug.has_lines) RETURN_IF_ERROR(AddCommonFile(use, opened->path, *answer, stop, &found));
    found.push_back(std::move(debug));
    break;
  }
  return found;
}

absl::Status DebugCopies::AddCommonFile(const FileUse& use, const std::string& path,
                                        const HelperAnswer& facts, const std::atomic<bool>& stop,
                                        std::vector<Source>* sources) {
  BuildId id;
  if (facts.altlink_id_size == 0 || facts.altlink_id_size > sizeof(facts.altlink_id)) {
    return absl::OkStatus();
  }
  id.size = facts.altlink_id_size;
  std::copy_n(facts.altlink_id, id.size, id.bytes.begin());
  const DebugFileQuery query = {
      .kind = DebugFileKind::kAlt,
      .path = path,
      .id = id,
      .name = std::string(facts.altlink, ::strnlen(facts.altlink, sizeof(facts.altlink)))};
  const DebugFileRoots roots = {
      .pid = use.pid, .parent_pid = use.parent_pid, .proc_root = options_.proc_root};
  for (int place = 0, tries = 0; tries < kMaxCandidates; ++tries) {
    auto opened = OpenDebugFile(query, roots, -1, place);
    if (!opened.ok()) break;
    place = opened->place + 1;
    Source common = {.fd = std::move(opened->fd), .id = id, .is_common = true};
    const auto answer = Ask(HelperOperation::kIdentify, false, common.fd, nullptr, stop);
    if (!answer.ok() && answer.status().code() != absl::StatusCode::kInvalidArgument) {
      return answer.status();
    }
    if (!answer.ok() || !IsOf(*answer, id) || (answer->flags & kHelperCommon) == 0) continue;
    common.bytes = SizeOf(common.fd.get());
    sources->insert(sources->begin(), std::move(common));
    break;
  }
  return absl::OkStatus();
}

absl::StatusOr<base::UniqueFd> DebugCopies::NewScratch() const {
  const char* directory = options_.directory.empty() ? "/tmp" : options_.directory.c_str();
  base::UniqueFd fd(::open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (fd.valid()) return fd;
  // Not every file system has O_TMPFILE.
  std::string path = std::string(directory) + "/.debug-copy-XXXXXX";
  fd.Reset(::mkostemp(path.data(), O_CLOEXEC));
  if (!fd.valid()) return base::Unavailable("make {}: error {}", path, errno);
  ::unlink(path.c_str());
  return fd;
}

absl::StatusOr<base::UniqueFd> DebugCopies::Copy(Source& source, const std::atomic<bool>& stop) {
  if (source.bytes > options_.max_file_bytes) {
    return base::ResourceExhausted("{} bytes, at most {} are sent", source.bytes,
                                   options_.max_file_bytes);
  }
  ASSIGN_OR_RETURN(base::UniqueFd output, NewScratch());
  RETURN_IF_ERROR(
      Ask(HelperOperation::kStrip, source.is_executable, source.fd, &output, stop).status());
  // What the helper wrote is a stranger's as the file was: its size, too.
  if (SizeOf(output.get()) > options_.max_file_bytes) {
    return base::ResourceExhausted("the copy has {} bytes", SizeOf(output.get()));
  }
  return output;
}

}  // namespace firewatch::symbolizer
