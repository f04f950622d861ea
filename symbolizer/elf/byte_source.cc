// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/elf/byte_source.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/status.h"

namespace firewatch::symbolizer {
namespace {

// lseek, not fstat: glibc 2.36 turns fstat into newfstatat, which takes a path and therefore is
// not on the helper's list of system calls.
uint64_t SizeOf(int fd) {
  const off_t end = ::lseek(fd, 0, SEEK_END);
  return end < 0 ? 0 : static_cast<uint64_t>(end);
}

}  // namespace

absl::Status ByteSource::Read(uint64_t offset, std::span<std::byte> out) const {
  if (offset > size_ || out.size() > size_ - offset) {
    return base::MakeStatus(
        absl::StatusCode::kOutOfRange,
        fmt::format("{} bytes at {} lie outside the file of {} bytes", out.size(), offset, size_));
  }
  return out.empty() ? absl::OkStatus() : ReadInside(offset, out);
}

std::span<const std::byte> ByteSource::View(uint64_t offset, uint64_t size) const {
  if (offset > size_ || size > size_ - offset || size == 0) return {};
  const std::span<const std::byte> whole = Whole();
  return whole.empty() ? whole : whole.subspan(offset, size);
}

FdByteSource::FdByteSource(int fd) : ByteSource(SizeOf(fd)), fd_(fd) {}

absl::Status FdByteSource::ReadInside(uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t got = ::pread(fd_, out.data(), out.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return base::ErrnoStatus(errno, fmt::format("read at {}", offset));
    if (got == 0) return base::Unavailable("the file shrank while it was read");
    offset += static_cast<uint64_t>(got);
    out = out.subspan(static_cast<size_t>(got));
  }
  return absl::OkStatus();
}

MappingByteSource::~MappingByteSource() {
  if (!mapped_.empty()) ::munmap(const_cast<std::byte*>(mapped_.data()), mapped_.size());
}

std::span<const std::byte> MappingByteSource::Whole() const {
  if (mapped_.empty() && size() > 0) {
    void* memory = ::mmap(nullptr, size(), PROT_READ, MAP_SHARED, fd(), 0);
    if (memory != MAP_FAILED) mapped_ = {static_cast<const std::byte*>(memory), size()};
  }
  return mapped_;
}

absl::Status SpanByteSource::ReadInside(uint64_t offset, std::span<std::byte> out) const {
  std::memcpy(out.data(), bytes_.data() + offset, out.size());
  return absl::OkStatus();
}

}  // namespace firewatch::symbolizer
