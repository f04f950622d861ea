// SPDX-License-Identifier: Apache-2.0
// What /proc tells about one process. The texts hold names chosen by strangers (spaces, ')', line
// breaks, any bytes), so parsing is apart from reading and never trusts a field's shape.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/core/events.h"

namespace firewatch::agent {

struct ProcStat {
  std::string comm;
  Pid parent{};
  bool kernel_thread = false;  // PF_KTHREAD
};

struct ProcStatus {
  Pid thread_group{};  // differs from the asked id when that names a thread
  Pid parent{};
};

// One executable line of maps. Memory without a file has the path "//anon", as in perf's records.
struct ProcMapsEntry {
  uint64_t start = 0;
  uint64_t end = 0;
  uint64_t file_offset = 0;
  symbolizer::FileIdentity file;
  // Anonymous memory that stands for a piece of the file: see ParseProcMaps.
  bool remapped = false;
};

absl::StatusOr<ProcStat> ParseProcStat(std::string_view text);
absl::StatusOr<ProcStatus> ParseProcStatus(std::string_view text);
// Appends the executable lines, in the order of the text. Returns how many lines did not parse;
// those are skipped.
//
// Programs that put their code on huge pages copy it into anonymous memory at the same addresses
// (node --use-largepages, many databases), and the kernel has forgotten the file. A heuristic finds
// it: an anonymous executable line is taken for text of a file when that file's lines border on
// both ends of the run of anonymous lines around it, without a gap, and both are as far from the
// file's beginning (start - offset); where segments lie at different distances, one of the two must
// be executable and tells the distance. The dynamic loader reserves a file's whole span at once, so
// no other memory comes to lie inside. Such entries have the file, the offset, and `remapped`.
size_t ParseProcMaps(std::string_view text, std::vector<ProcMapsEntry>* entries);

// True for executable memory that no file stands behind: anonymous, heap, stack, System V and
// /dev/zero. A memfd is a file: it can be opened and may hold an ELF; all but .NET's, which maps
// the code that it generates twice (writable here, executable there).
bool IsAnonymousMapping(std::string_view path);

// "/a/b (deleted)" -> "/a/b".
std::string_view WithoutDeleted(std::string_view path);

// Reads through `root` ("/proc", or a directory of a test). Any thread. NotFound when the process
// is gone, PermissionDenied when it may not be looked at.
class ProcReader {
 public:
  explicit ProcReader(std::string root) : root_(std::move(root)) {}

  absl::StatusOr<std::vector<Pid>> ListPids() const;
  absl::StatusOr<ProcStat> ReadStat(Pid pid) const;
  absl::StatusOr<ProcStatus> ReadStatus(Pid pid) const;
  // Of the main thread.
  absl::StatusOr<std::string> ReadComm(Pid pid) const;
  absl::StatusOr<std::vector<ProcMapsEntry>> ReadMaps(Pid pid) const;
  // The target of the exe link without " (deleted)". NotFound for kernel threads.
  absl::StatusOr<std::string> ReadExe(Pid pid) const;
  // The whole text, one line per hierarchy.
  absl::StatusOr<std::string> ReadCgroup(Pid pid) const;

 private:
  std::string PathOf(Pid pid, std::string_view name) const;

  const std::string root_;
};

}  // namespace firewatch::agent
