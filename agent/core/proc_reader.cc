// SPDX-License-Identifier: Apache-2.0
// The formats are those of proc(5) and fs/proc/task_mmu.c (show_map_vma), array.c (do_task_stat).
#include "agent/core/proc_reader.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <memory>
#include <optional>

#include "base/status.h"
#include "base/unique_fd.h"

namespace firewatch::agent {
namespace {

// include/linux/sched.h; unchanged since 2.6.
constexpr uint64_t kPfKthread = 0x0020'0000;
// 65,530 mappings (vm.max_map_count) of 256 bytes. More is cut; the process then has holes.
constexpr size_t kMaxFileBytes = size_t{16} << 20;

std::string_view TakeLine(std::string_view* text) {
  const size_t end = text->find('\n');
  const std::string_view line = text->substr(0, end);
  text->remove_prefix(end == std::string_view::npos ? text->size() : end + 1);
  return line;
}

std::string_view TakeField(std::string_view* line) {
  const size_t begin = line->find_first_not_of(" \t");
  if (begin == std::string_view::npos) {
    *line = {};
    return {};
  }
  line->remove_prefix(begin);
  const size_t end = line->find_first_of(" \t");
  const std::string_view field = line->substr(0, end);
  line->remove_prefix(field.size());
  return field;
}

template <typename T>
bool ParseNumber(std::string_view text, int base, T* value) {
  if (text.empty()) return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value, base);
  return error == std::errc() && end == text.data() + text.size();
}

// "a<separator>b", both of the given base.
template <typename T>
bool ParsePair(std::string_view text, char separator, int base, T* first, T* second) {
  const size_t at = text.find(separator);
  if (at == std::string_view::npos) return false;
  return ParseNumber(text.substr(0, at), base, first) &&
         ParseNumber(text.substr(at + 1), base, second);
}

// maps escapes nothing but the line break, as "\012".
std::string UnescapePath(std::string_view path) {
  constexpr std::string_view kEscape = "\\012";
  std::string out;
  out.reserve(path.size());
  for (size_t at; (at = path.find(kEscape)) != std::string_view::npos;) {
    out.append(path.substr(0, at)).push_back('\n');
    path.remove_prefix(at + kEscape.size());
  }
  return out.append(path);
}

struct MapsLine {
  ProcMapsEntry entry;
  bool executable = false;
};

// 55d620d8b000-55d620d90000 r-xp 00002000 fe:00 247026                     /usr/bin/cat
bool ParseMapsLine(std::string_view line, MapsLine* parsed) {
  ProcMapsEntry* entry = &parsed->entry;
  if (!ParsePair(TakeField(&line), '-', 16, &entry->start, &entry->end)) return false;
  const std::string_view permissions = TakeField(&line);
  if (permissions.size() != 4 || entry->start >= entry->end) return false;
  parsed->executable = permissions[2] == 'x';
  symbolizer::FileIdentity& file = entry->file;
  if (!ParseNumber(TakeField(&line), 16, &entry->file_offset) ||
      !ParsePair(TakeField(&line), ':', 16, &file.device_major, &file.device_minor) ||
      !ParseNumber(TakeField(&line), 10, &file.inode)) {
    return false;
  }
  const size_t path = line.find_first_not_of(' ');
  file.path = path == std::string_view::npos ? "//anon" : UnescapePath(line.substr(path));
  return true;
}

// Entries [first, size) lie in one run of anonymous memory between these two lines.
void NameRemapped(const MapsLine& before, const MapsLine& after, size_t first,
                  std::vector<ProcMapsEntry>* entries) {
  if (before.entry.file != after.entry.file || before.entry.file.inode == 0) return;
  const uint64_t distance_before = before.entry.start - before.entry.file_offset;
  const uint64_t distance_after = after.entry.start - after.entry.file_offset;
  uint64_t distance = distance_before;
  if (distance_before != distance_after) {
    if (before.executable == after.executable) return;
    if (after.executable) distance = distance_after;
  }
  for (size_t i = first; i < entries->size(); ++i) {
    ProcMapsEntry& entry = (*entries)[i];
    if (entry.start < distance) return;
    entry.file = before.entry.file;
    entry.file_offset = entry.start - distance;
    entry.remapped = true;
  }
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  const base::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return base::ErrnoStatus(errno, "open " + path);
  std::string text;
  size_t used = 0;
  while (used < kMaxFileBytes) {
    if (text.size() - used < 4096) text.resize(used + std::max<size_t>(8192, used));
    const ssize_t got = ::read(fd.get(), text.data() + used, text.size() - used);
    if (got < 0 && errno == EINTR) continue;
    // ESRCH: the process went away between open and read.
    if (got < 0) return base::ErrnoStatus(errno, "read " + path);
    if (got == 0) break;
    used += static_cast<size_t>(got);
  }
  text.resize(used);
  return text;
}

}  // namespace

absl::StatusOr<ProcStat> ParseProcStat(std::string_view text) {
  // comm may hold spaces and parentheses; nothing after it does.
  const size_t open = text.find('(');
  const size_t close = text.rfind(')');
  if (open == std::string_view::npos || close == std::string_view::npos || close < open) {
    return base::InvalidArgument("stat without (comm)");
  }
  ProcStat stat;
  stat.comm = text.substr(open + 1, close - open - 1);
  std::string_view rest = text.substr(close + 1);
  TakeField(&rest);  // state
  uint32_t parent = 0;
  if (!ParseNumber(TakeField(&rest), 10, &parent)) {
    return base::InvalidArgument("stat without a parent");
  }
  stat.parent = Pid{parent};
  for (int skipped = 0; skipped < 4; ++skipped) TakeField(&rest);  // pgrp session tty_nr tpgid
  uint64_t flags = 0;
  if (!ParseNumber(TakeField(&rest), 10, &flags)) {
    return base::InvalidArgument("stat without flags");
  }
  stat.kernel_thread = (flags & kPfKthread) != 0;
  return stat;
}

absl::StatusOr<ProcStatus> ParseProcStatus(std::string_view text) {
  std::optional<uint32_t> thread_group;
  std::optional<uint32_t> parent;
  // Name: comes first and escapes line breaks, so a line can be trusted to be one field.
  while (!text.empty()) {
    std::string_view line = TakeLine(&text);
    const std::string_view name = TakeField(&line);
    uint32_t value = 0;
    if (name == "Tgid:" && ParseNumber(TakeField(&line), 10, &value)) thread_group = value;
    if (name == "PPid:" && ParseNumber(TakeField(&line), 10, &value)) parent = value;
  }
  if (!thread_group || !parent) return base::InvalidArgument("status without Tgid or PPid");
  return ProcStatus{.thread_group = Pid{*thread_group}, .parent = Pid{*parent}};
}

size_t ParseProcMaps(std::string_view text, std::vector<ProcMapsEntry>* entries) {
  size_t malformed = 0;
  uint64_t last_end = 0;
  std::optional<MapsLine> last_file;  // nothing but anonymous lines, without a gap, since then
  size_t run_begin = 0;               // the first entry since then
  while (!text.empty()) {
    const std::string_view line = TakeLine(&text);
    if (line.empty()) continue;
    MapsLine parsed;
    if (!ParseMapsLine(line, &parsed)) {
      ++malformed;
      continue;
    }
    const bool adjacent = parsed.entry.start == last_end;
    last_end = parsed.entry.end;
    if (IsAnonymousMapping(parsed.entry.file.path)) {
      if (!adjacent) last_file.reset();
    } else {
      if (adjacent && last_file && run_begin < entries->size()) {
        NameRemapped(*last_file, parsed, run_begin, entries);
      }
      last_file = parsed;
    }
    if (parsed.executable) entries->push_back(std::move(parsed.entry));
    if (last_file && last_file->entry.end == last_end) run_begin = entries->size();
  }
  return malformed;
}

bool IsAnonymousMapping(std::string_view path) {
  for (const std::string_view prefix : {"//anon", "[anon", "[heap]", "[stack", "/dev/zero", "/SYSV",
                                        "/anon_hugepage", "/memfd:doublemapper"}) {
    if (path.starts_with(prefix)) return true;
  }
  return path.empty();
}

std::string_view WithoutDeleted(std::string_view path) {
  constexpr std::string_view kSuffix = " (deleted)";
  if (path.ends_with(kSuffix)) path.remove_suffix(kSuffix.size());
  return path;
}

std::string ProcReader::PathOf(Pid pid, std::string_view name) const {
  return fmt::format("{}/{}/{}", root_, static_cast<uint32_t>(pid), name);
}

absl::StatusOr<std::vector<Pid>> ProcReader::ListPids() const {
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(root_.c_str()), ::closedir);
  if (!directory) return base::ErrnoStatus(errno, "open " + root_);
  std::vector<Pid> pids;
  while (const dirent* item = ::readdir(directory.get())) {
    uint32_t pid = 0;
    if (ParseNumber(std::string_view(item->d_name), 10, &pid)) pids.push_back(Pid{pid});
  }
  return pids;
}

absl::StatusOr<ProcStat> ProcReader::ReadStat(Pid pid) const {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(PathOf(pid, "stat")));
  return ParseProcStat(text);
}

absl::StatusOr<ProcStatus> ProcReader::ReadStatus(Pid pid) const {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(PathOf(pid, "status")));
  return ParseProcStatus(text);
}

absl::StatusOr<std::string> ProcReader::ReadComm(Pid pid) const {
  ASSIGN_OR_RETURN(std::string text, ReadFile(PathOf(pid, "comm")));
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

absl::StatusOr<std::vector<ProcMapsEntry>> ProcReader::ReadMaps(Pid pid) const {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(PathOf(pid, "maps")));
  std::vector<ProcMapsEntry> entries;
  ParseProcMaps(text, &entries);
  return entries;
}

absl::StatusOr<std::string> ProcReader::ReadExe(Pid pid) const {
  const std::string path = PathOf(pid, "exe");
  char target[PATH_MAX];
  const ssize_t size = ::readlink(path.c_str(), target, sizeof(target));
  if (size < 0) return base::ErrnoStatus(errno, "readlink " + path);
  return std::string(WithoutDeleted({target, static_cast<size_t>(size)}));
}

absl::StatusOr<std::string> ProcReader::ReadCgroup(Pid pid) const {
  return ReadFile(PathOf(pid, "cgroup"));
}

}  // namespace firewatch::agent
