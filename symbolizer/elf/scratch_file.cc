// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/elf/scratch_file.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "base/status.h"

namespace firewatch::symbolizer {
namespace {

constexpr uint64_t kPage = 4096;

uint64_t RoundUp(uint64_t size) { return (size + kPage - 1) & ~(kPage - 1); }

// pwrite and not a writable mapping: a full disk is then an error, not SIGBUS.
absl::Status WriteAt(int fd, uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return base::ResourceExhausted("no room in the scratch file: errno {}", errno);
    offset += static_cast<uint64_t>(put);
    bytes = bytes.subspan(static_cast<size_t>(put));
  }
  return absl::OkStatus();
}

}  // namespace

ScratchFile::~ScratchFile() {
  for (const Mapping& mapping : mappings_) ::munmap(mapping.start, mapping.size);
}

absl::Status ScratchFile::Begin(uint64_t size) {
  DropOpenBlock();  // one that was damaged
  {
    const base::MutexLock lock(mutex_);
    ASSIGN_OR_RETURN(offset_, Allocate(size, max_bytes_, &section_bytes_));
  }
  size_ = size;
  filled_ = 0;
  if (fd_ < 0) {
    own_fd_.Reset(::memfd_create("firewatch-sections", MFD_CLOEXEC));
    if (!own_fd_.valid()) return base::ErrnoStatus(errno, "make a memfd for sections");
    fd_ = own_fd_.get();
  }
  return absl::OkStatus();
}

absl::Status ScratchFile::Write(std::span<const std::byte> bytes) {
  if (bytes.size() > size_ - filled_) {
    return base::DataLoss("a section inflates to more than the {} bytes that it claims", size_);
  }
  RETURN_IF_ERROR(WriteAt(fd_, offset_ + filled_, bytes));
  filled_ += bytes.size();
  return absl::OkStatus();
}

absl::StatusOr<std::span<const std::byte>> ScratchFile::End() {
  if (filled_ != size_) {
    return base::DataLoss("a section inflates to {} bytes and claims {}", filled_, size_);
  }
  ASSIGN_OR_RETURN(const auto block, Map(offset_, size_));
  used_ += RoundUp(size_);
  size_ = filled_ = 0;
  return block;
}

absl::StatusOr<std::span<const std::byte>> ScratchFile::Put(std::span<const std::byte> bytes) {
  if (!on_disk_) return base::FailedPrecondition("there is no scratch file");
  uint64_t offset;
  {
    const base::MutexLock lock(mutex_);
    ASSIGN_OR_RETURN(offset, Allocate(bytes.size(), kMaxPutBytes, &put_bytes_));
  }
  RETURN_IF_ERROR(WriteAt(fd_, offset, bytes));
  return Map(offset, bytes.size());
}

absl::StatusOr<uint64_t> ScratchFile::Allocate(uint64_t size, uint64_t max, uint64_t* taken) {
  const bool fits = size <= max && *taken <= max - size;
  // What was given up in the middle of the file is never written, but takes of its length.
  if (!fits || end_ > max_bytes_ + kMaxPutBytes - size) {
    return base::ResourceExhausted("{} bytes in a scratch file, {} are allowed", *taken + size,
                                   max);
  }
  const uint64_t offset = end_;
  end_ += RoundUp(size);
  *taken += RoundUp(size);
  return offset;
}

void ScratchFile::DropOpenBlock() {
  const base::MutexLock lock(mutex_);
  if (size_ == 0) return;
  section_bytes_ -= RoundUp(size_);
  if (end_ == offset_ + RoundUp(size_)) end_ = offset_;
  size_ = filled_ = 0;
}

absl::StatusOr<std::span<const std::byte>> ScratchFile::Map(uint64_t offset, uint64_t size) {
  if (size == 0) return std::span<const std::byte>();
  void* start = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd_, static_cast<off_t>(offset));
  if (start == MAP_FAILED) return base::ResourceExhausted("map {} bytes: errno {}", size, errno);
  const base::MutexLock lock(mutex_);
  mappings_.push_back({.start = start, .size = size});
  return std::span<const std::byte>(static_cast<const std::byte*>(start), size);
}

}  // namespace firewatch::symbolizer
