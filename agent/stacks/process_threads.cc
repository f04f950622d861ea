// SPDX-License-Identifier: Apache-2.0
#include "agent/stacks/process_threads.h"

#include <dirent.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

namespace firewatch::agent {
namespace {

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// 'R', 'S', 'D' …; 'X' when it is gone.
char StateOf(pid_t pid, pid_t tid) {
  const std::string text = ReadFile(fmt::format("/proc/{}/task/{}/stat", pid, tid));
  const size_t name_end = text.rfind(") ");  // the name may hold anything
  return name_end == std::string::npos || name_end + 2 >= text.size() ? 'X' : text[name_end + 2];
}

std::vector<pid_t> ThreadsOf(pid_t pid) {
  std::vector<pid_t> threads;
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(
      ::opendir(fmt::format("/proc/{}/task", pid).c_str()), ::closedir);
  if (folder == nullptr) return threads;
  while (const dirent* entry = ::readdir(folder.get())) {
    if (const int tid = std::atoi(entry->d_name); tid > 0) threads.push_back(tid);
  }
  return threads;
}

void AddThreads(pid_t pid, bool descendants, std::vector<ThreadId>* threads) {
  for (const pid_t tid : ThreadsOf(pid)) {
    const char state = StateOf(pid, tid);
    if (state != 'D' && state != 'X' && state != 'Z') {
      threads->push_back({pid, tid, state == 'R', state == 'T'});
    }
    if (!descendants) continue;
    const std::string children = ReadFile(fmt::format("/proc/{}/task/{}/children", pid, tid));
    for (const char* at = children.c_str(); *at != '\0';) {
      char* end = nullptr;
      const long child = std::strtol(at, &end, 10);
      if (end == at) break;
      if (child > 0) AddThreads(static_cast<pid_t>(child), true, threads);
      at = end;
    }
  }
}

}  // namespace

std::vector<ThreadId> ListThreads(pid_t pid, bool descendants) {
  std::vector<ThreadId> threads;
  AddThreads(pid, descendants, &threads);
  return threads;
}

ThreadId PickThread(const std::vector<ThreadId>& threads, std::mt19937_64& random) {
  std::vector<ThreadId> running;
  std::copy_if(threads.begin(), threads.end(), std::back_inserter(running),
               [](const ThreadId& thread) { return thread.running; });
  const std::vector<ThreadId>& from = running.empty() || random() % 8 == 0 ? threads : running;
  return from[random() % from.size()];
}

}  // namespace firewatch::agent
