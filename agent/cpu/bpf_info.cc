// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/bpf_info.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <fstream>
#include <string_view>

#include "base/status.h"

namespace firewatch::agent {
namespace {

constexpr size_t kMaxKeptWarnings = 64 * 1024;

// libbpf's hook is one per process and has no context; the object that listens is per thread.
thread_local LibbpfLog* listening = nullptr;

int OnLibbpfLog(libbpf_print_level level, const char* format, va_list arguments) {
  va_list copy;
  va_copy(copy, arguments);
  const int size = std::vsnprintf(nullptr, 0, format, copy);
  va_end(copy);
  if (size <= 0) return 0;
  std::string text(static_cast<size_t>(size) + 1, '\0');
  std::vsnprintf(text.data(), text.size(), format, arguments);
  while (!text.empty() && (text.back() == '\0' || text.back() == '\n')) text.pop_back();
  spdlog::debug("{}", text);
  if (listening != nullptr) listening->Add(std::move(text), level == LIBBPF_WARN);
  return size;
}

// The least that a map takes: before Linux 6.4 its fdinfo leaves out the data of a ring and all but
// one copy of per-CPU values.
uint64_t LeastBytesOf(const bpf_map* map) {
  const uint64_t entries = bpf_map__max_entries(map);
  switch (bpf_map__type(map)) {
    case BPF_MAP_TYPE_RINGBUF:
      return entries;
    case BPF_MAP_TYPE_PERCPU_ARRAY:
      return entries * bpf_map__value_size(map) *
             static_cast<uint64_t>(std::max(libbpf_num_possible_cpus(), 1));
    default:
      return 0;
  }
}

}  // namespace

uint64_t BpfRunNs(std::span<const int> program_fds) {
  uint64_t sum = 0;
  for (const int fd : program_fds) {
    bpf_prog_info info{};
    uint32_t size = sizeof(info);
    if (bpf_obj_get_info_by_fd(fd, &info, &size) == 0) sum += info.run_time_ns;
  }
  return sum;
}

uint64_t MapChargedBytes(int map_fd) {
  std::ifstream info(fmt::format("/proc/self/fdinfo/{}", map_fd));
  for (std::string name; info >> name;) {
    if (name != "memlock:") continue;
    uint64_t bytes = 0;
    return info >> bytes ? bytes : 0;
  }
  return 0;
}

LibbpfLog::LibbpfLog() {
  libbpf_set_print(OnLibbpfLog);
  listening = this;
}

LibbpfLog::~LibbpfLog() { listening = nullptr; }

void LibbpfLog::Add(std::string text, bool is_warning) {
  if (!is_warning) return;
  warnings_ += text;
  warnings_ += '\n';
  if (warnings_.size() > kMaxKeptWarnings) {
    warnings_.erase(0, warnings_.size() - kMaxKeptWarnings);
  }
}

absl::StatusOr<base::UniqueFd> EnableBpfStats() {
  base::UniqueFd fd(bpf_enable_stats(BPF_STATS_RUN_TIME));
  if (!fd.valid()) return base::ErrnoStatus(errno, "bpf: enable run-time statistics");
  return fd;
}

std::vector<BpfProgramStats> ReadProgramStats(const bpf_object* object) {
  std::vector<BpfProgramStats> all;
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, object) {
    const int fd = bpf_program__fd(program);
    bpf_prog_info info{};
    uint32_t size = sizeof(info);
    if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &size) != 0) continue;
    all.push_back({.name = bpf_program__name(program),
                   .run_time_ns = info.run_time_ns,
                   .run_count = info.run_cnt,
                   .missed = info.recursion_misses,
                   .verified_instructions = info.verified_insns});
  }
  return all;
}

std::vector<std::pair<std::string, uint64_t>> ReadMapSizes(const bpf_object* object) {
  std::vector<std::pair<std::string, uint64_t>> sizes;
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object) {
    if (const int fd = bpf_map__fd(map); fd >= 0) {
      sizes.emplace_back(bpf_map__name(map), std::max(MapChargedBytes(fd), LeastBytesOf(map)));
    }
  }
  return sizes;
}

uint64_t ReadMapBytes(const bpf_object* object) {
  uint64_t total = 0;
  for (const auto& [name, bytes] : ReadMapSizes(object)) total += bytes;
  return total;
}

}  // namespace firewatch::agent
