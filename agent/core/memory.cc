// SPDX-License-Identifier: Apache-2.0
#include "agent/core/memory.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "base/unique_fd.h"

namespace firewatch::agent {

// A line such as "RssAnon:     1234 kB".
uint64_t StatusBytes(std::string_view field) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    const std::string_view view = line;
    if (!view.starts_with(field) || view.size() <= field.size() || view[field.size()] != ':') {
      continue;
    }
    const size_t digits = view.find_first_of("0123456789", field.size());
    uint64_t kib = 0;
    if (digits != std::string_view::npos) {
      std::from_chars(view.data() + digits, view.data() + view.size(), kib);
    }
    return kib * 1024;
  }
  return 0;
}

// "size resident shared text lib data dt", in pages; shared are file and shmem pages (task_statm in
// fs/proc/task_mmu.c), so that what is left of resident is RssAnon.
class RssAnonReader {
 public:
  RssAnonReader() : fd_(::open("/proc/self/statm", O_RDONLY | O_CLOEXEC)) {}
  uint64_t Read() const;

 private:
  base::UniqueFd fd_;
};

uint64_t RssAnonReader::Read() const {
  std::array<char, 256> text{};
  const ssize_t got = fd_.valid() ? ::pread(fd_.get(), text.data(), text.size(), 0) : -1;
  if (got <= 0) return 0;
  std::array<uint64_t, 3> pages{};
  const char* at = text.data();
  const char* const end = at + got;
  for (uint64_t& number : pages) {
    while (at != end && *at == ' ') ++at;
    at = std::from_chars(at, end, number).ptr;
  }
  const uint64_t anonymous = pages[1] - std::min(pages[1], pages[2]);
  return anonymous * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

uint64_t RssAnonBytes() { return RssAnonReader().Read(); }

MemoryBudget::MemoryBudget(uint64_t limit_bytes, std::function<uint64_t()> heap_bytes)
    : limit_bytes_(limit_bytes),
      slack_bytes_(std::max(limit_bytes / kSlackShare, kMinSlackBytes)),
      heap_bytes_(std::move(heap_bytes)) {
  if (heap_bytes_) return;
  heap_bytes_ = [reader = std::make_shared<const RssAnonReader>()] { return reader->Read(); };
}

uint64_t MemoryBudget::Look() {
  const uint64_t heap = heap_bytes_();
  peak_bytes_ = std::max(peak_bytes_, heap);
  return heap;
}

void MemoryBudget::EndWindow() {
  last_peak_bytes_ = std::exchange(peak_bytes_, 0);
  Look();
}

MemoryBudget::Room MemoryBudget::ForTables() {
  Look();
  const uint64_t others = std::max(peak_bytes_, last_peak_bytes_) + fixed_bytes_ + reserved_bytes_;
  const auto left = [&](uint64_t slack) {
    return limit_bytes_ - std::min(limit_bytes_, others + slack);
  };
  return {.grow_to = left(slack_bytes_), .keep = left(slack_bytes_ / 2)};
}

bool MemoryBudget::IsTight(uint64_t table_bytes) {
  return Look() + fixed_bytes_ + table_bytes + slack_bytes_ / 2 > limit_bytes_;
}

}  // namespace firewatch::agent
