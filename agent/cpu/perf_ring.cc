// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/perf_ring.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/status.h"

namespace firewatch::agent {

absl::StatusOr<PerfRing> PerfRing::Map(int event_fd, size_t data_bytes) {
  const auto page_bytes = static_cast<size_t>(::getpagesize());
  void* address =
      ::mmap(nullptr, page_bytes + data_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, event_fd, 0);
  if (address == MAP_FAILED) {
    const absl::Status status = base::ErrnoStatus(errno, "map a perf ring");
    if (errno != EPERM) return status;
    return base::PermissionDenied(
        "{} (over kernel.perf_event_mlock_kb: needs CAP_IPC_LOCK or a larger memlock limit)",
        base::Message(status));
  }
  return PerfRing(static_cast<perf_event_mmap_page*>(address), page_bytes, data_bytes);
}

PerfRing::PerfRing(PerfRing&& other) noexcept { *this = std::move(other); }

PerfRing& PerfRing::operator=(PerfRing&& other) noexcept {
  if (this == &other) return *this;
  Unmap();
  page_ = std::exchange(other.page_, nullptr);
  data_offset_ = other.data_offset_;
  data_bytes_ = other.data_bytes_;
  front_size_ = std::exchange(other.front_size_, 0);
  wrapped_ = std::move(other.wrapped_);
  return *this;
}

PerfRing::~PerfRing() { Unmap(); }

void PerfRing::Unmap() {
  if (page_ != nullptr) ::munmap(page_, data_offset_ + data_bytes_);
  page_ = nullptr;
}

std::span<const std::byte> PerfRing::Front() {
  // Pairs with the barrier with which the kernel publishes data_head.
  const uint64_t head = __atomic_load_n(&page_->data_head, __ATOMIC_ACQUIRE);
  const uint64_t tail = page_->data_tail;  // only we write it
  if (head == tail) return {};
  const auto* data = reinterpret_cast<const std::byte*>(page_) + data_offset_;
  const size_t begin = tail & (data_bytes_ - 1);
  // Records are padded to 8 bytes, so a header is never split.
  perf_event_header header;
  std::memcpy(&header, data + begin, sizeof(header));
  if (header.size < sizeof(header)) {  // never written by a kernel: give everything up
    front_size_ = head - tail;
    return {data + begin, sizeof(header)};
  }
  front_size_ = header.size;
  if (begin + front_size_ <= data_bytes_) return {data + begin, front_size_};
  const size_t first = data_bytes_ - begin;
  wrapped_.resize(front_size_);
  std::memcpy(wrapped_.data(), data + begin, first);
  std::memcpy(wrapped_.data() + first, data, front_size_ - first);
  return wrapped_;
}

void PerfRing::Pop() {
  const uint64_t tail = page_->data_tail + std::exchange(front_size_, 0);
  // The reads of the record happen before the kernel may write over it.
  __atomic_store_n(&page_->data_tail, tail, __ATOMIC_RELEASE);
}

}  // namespace firewatch::agent
