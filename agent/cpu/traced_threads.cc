// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/traced_threads.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>

#include "base/unique_fd.h"

namespace firewatch::agent {
namespace {

uint32_t Raw(Pid pid) { return static_cast<uint32_t>(pid); }

// At most `buffer` bytes; empty when the file cannot be read.
std::string_view ReadInto(const std::string& path, std::span<char> buffer) {
  const base::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return {};
  const ssize_t size = ::read(fd.get(), buffer.data(), buffer.size());
  return {buffer.data(), size > 0 ? static_cast<size_t>(size) : 0};
}

// The next number of the text, 0 when there is none.
uint64_t TakeNumber(std::string_view* text) {
  const size_t begin = text->find_first_of("0123456789");
  if (begin == std::string_view::npos) {
    *text = {};
    return 0;
  }
  uint64_t value = 0;
  const auto [end, error] =
      std::from_chars(text->data() + begin, text->data() + text->size(), value);
  text->remove_prefix(static_cast<size_t>(end - text->data()));
  return error == std::errc() ? value : 0;
}

std::vector<uint32_t> ListThreads(const std::string& directory_path) {
  std::vector<uint32_t> out;
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(directory_path.c_str()),
                                                      ::closedir);
  if (!directory) return out;
  while (const dirent* entry = ::readdir(directory.get())) {
    std::string_view name = entry->d_name;
    if (const uint64_t tid = TakeNumber(&name); tid != 0) out.push_back(static_cast<uint32_t>(tid));
  }
  return out;
}

}  // namespace

bool ReadThreadTime(const std::string& proc_root, Pid pid, uint32_t tid, ThreadTime* out) {
  const std::string base = fmt::format("{}/{}/task/{}/", proc_root, Raw(pid), tid);
  std::array<char, 1024> buffer;
  std::string_view stat = ReadInto(base + "stat", buffer);
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string_view::npos || name_end + 2 >= stat.size()) return false;
  stat.remove_prefix(name_end + 2);
  const char state = stat.front();
  if (state == 'Z' || state == 'X') return false;
  out->running = state == 'R';
  // The 14th and 15th field of stat, the 12th and 13th from the state on.
  for (int i = 0; i < 11 && !stat.empty(); ++i) {
    stat.remove_prefix(std::min(stat.find(' '), stat.size() - 1) + 1);
  }
  const uint64_t ticks = TakeNumber(&stat) + TakeNumber(&stat);
  out->cpu_ns = ticks * (1'000'000'000 / static_cast<uint64_t>(::sysconf(_SC_CLK_TCK)));
  std::array<char, 128> exact;
  std::string_view schedstat = ReadInto(base + "schedstat", exact);
  if (const uint64_t ran_ns = TakeNumber(&schedstat); ran_ns != 0) out->cpu_ns = ran_ns;
  return true;
}

TracedThreads::TracedThreads(std::vector<Pid> roots, std::string proc_root)
    : proc_root_(std::move(proc_root)) {
  for (const Pid pid : roots) processes_.push_back({.pid = pid});
}

void TracedThreads::AddChildren(size_t index) {
  const Pid parent = processes_[index].pid;
  std::array<char, 16'384> buffer;
  std::vector<Pid> children;
  for (const Thread& thread : processes_[index].threads) {
    std::string_view text = ReadInto(
        fmt::format("{}/{}/task/{}/children", proc_root_, Raw(parent), thread.tid), buffer);
    while (const uint64_t number = TakeNumber(&text)) {
      children.push_back(Pid{static_cast<uint32_t>(number)});
    }
  }
  for (const Pid child : children) {
    const bool known = std::any_of(processes_.begin(), processes_.end(),
                                   [child](const Process& one) { return one.pid == child; });
    if (!known) processes_.push_back({.pid = child, .parent = parent});
  }
}

void TracedThreads::ScanThreads(Process& process) {
  const std::vector<uint32_t> tids =
      ListThreads(fmt::format("{}/{}/task", proc_root_, Raw(process.pid)));
  const bool new_process = process.threads.empty();
  for (Thread& thread : process.threads) thread.alive = false;
  for (const uint32_t tid : tids) {
    ThreadTime time;
    if (!ReadThreadTime(proc_root_, process.pid, tid, &time)) continue;
    auto thread = std::find_if(process.threads.begin(), process.threads.end(),
                               [tid](const Thread& one) { return one.tid == tid; });
    if (thread == process.threads.end()) {
      // A thread that came since the last scan has earned all of its time; one that was there
      // before us nothing.
      const uint64_t before = first_scan_ && new_process ? time.cpu_ns : 0;
      process.threads.push_back({.tid = tid, .seen_cpu_ns = before});
      thread = process.threads.end() - 1;
    }
    const uint64_t used = time.cpu_ns - std::min(thread->seen_cpu_ns, time.cpu_ns);
    thread->seen_cpu_ns = time.cpu_ns;
    thread->credit_ns += used;
    thread->running = time.running;
    thread->alive = true;
    cpu_ns_ += used;
  }
  std::erase_if(process.threads, [](const Thread& thread) { return !thread.alive; });
  process.alive = !process.threads.empty();
}

void TracedThreads::Scan() {
  std::erase_if(processes_, [](const Process& process) { return !process.alive; });
  for (size_t i = 0; i < processes_.size(); ++i) {  // grows meanwhile
    ScanThreads(processes_[i]);
    AddChildren(i);
  }
  first_scan_ = false;
}

}  // namespace firewatch::agent
