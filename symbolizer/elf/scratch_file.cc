// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/elf/scratch_file.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "base/status.h"

namespace firewatch::symbolizer {
namespace {

constexpr uint64_t kPage = 4096;

}  // namespace

ScratchFile::~ScratchFile() {
  for (const Mapping& mapping : mappings_) ::munmap(mapping.start, mapping.size);
}

absl::Status ScratchFile::Begin(uint64_t size) {
  if (size > max_bytes_ || used_ > max_bytes_ - size) {
    return base::ResourceExhausted("inflated sections of {} bytes, {} are allowed", used_ + size,
                                   max_bytes_);
  }
  if (fd_ < 0) {
    own_fd_.Reset(::memfd_create("firewatch-sections", MFD_CLOEXEC));
    if (!own_fd_.valid()) return base::ErrnoStatus(errno, "make a memfd for sections");
    fd_ = own_fd_.get();
  }
  size_ = size;
  filled_ = 0;
  return absl::OkStatus();
}

absl::Status ScratchFile::Write(std::span<const std::byte> bytes) {
  if (bytes.size() > size_ - filled_) {
    return base::DataLoss("a section inflates to more than the {} bytes that it claims", size_);
  }
  // pwrite and not a writable mapping: a full disk is then an error, not SIGBUS.
  while (!bytes.empty()) {
    const ssize_t put =
        ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(used_ + filled_));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return base::ResourceExhausted("no room to inflate a section: errno {}", errno);
    filled_ += static_cast<uint64_t>(put);
    bytes = bytes.subspan(static_cast<size_t>(put));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::span<const std::byte>> ScratchFile::End() {
  if (filled_ != size_) {
    return base::DataLoss("a section inflates to {} bytes and claims {}", filled_, size_);
  }
  if (size_ == 0) return std::span<const std::byte>();
  void* start = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd_, static_cast<off_t>(used_));
  if (start == MAP_FAILED) return base::ResourceExhausted("map {} bytes: errno {}", size_, errno);
  mappings_.push_back({.start = start, .size = size_});
  used_ += (size_ + kPage - 1) & ~(kPage - 1);
  return std::span<const std::byte>(static_cast<const std::byte*>(start), size_);
}

}  // namespace firewatch::symbolizer
