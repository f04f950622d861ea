// SPDX-License-Identifier: Apache-2.0
// Bytes of a foreign file, fetched in pieces. Not mapped unless a source says so (View): a mapped
// file that its owner truncates raises SIGBUS, a read that comes up short is an error like any
// other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"

namespace firewatch::symbolizer {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Size when it was opened; the file may shrink later, then Read fails.
  uint64_t size() const { return size_; }
  // Fills `out` wholly, or fails: OutOfRange past the end, Unavailable when the read fails.
  absl::Status Read(uint64_t offset, std::span<std::byte> out) const;
  // The bytes in place, valid as long as the source: of a source in memory, or one that maps its
  // file. Empty: there is only Read (or they lie outside).
  std::span<const std::byte> View(uint64_t offset, uint64_t size) const;

 protected:
  explicit ByteSource(uint64_t size) : size_(size) {}

 private:
  // `out` lies within size().
  virtual absl::Status ReadInside(uint64_t offset, std::span<std::byte> out) const = 0;
  // All of the bytes, or none.
  virtual std::span<const std::byte> Whole() const { return {}; }
  uint64_t size_;
};

// Reads with pread(2). Does not own the descriptor.
class FdByteSource : public ByteSource {
 public:
  explicit FdByteSource(int fd);

 protected:
  int fd() const { return fd_; }

 private:
  absl::Status ReadInside(uint64_t offset, std::span<std::byte> out) const override;
  int fd_;
};

// The same, and maps the file when it is viewed. One thread until the first View has returned.
class MappingByteSource final : public FdByteSource {
 public:
  explicit MappingByteSource(int fd) : FdByteSource(fd) {}
  ~MappingByteSource() override;
  MappingByteSource(const MappingByteSource&) = delete;
  MappingByteSource& operator=(const MappingByteSource&) = delete;

 private:
  std::span<const std::byte> Whole() const override;
  // The file in one piece: a thousand .dwo with eight sections each are a thousand mappings.
  mutable std::span<const std::byte> mapped_;
};

// `bytes` must outlive the source.
class SpanByteSource final : public ByteSource {
 public:
  explicit SpanByteSource(std::span<const std::byte> bytes)
      : ByteSource(bytes.size()), bytes_(bytes) {}

 private:
  absl::Status ReadInside(uint64_t offset, std::span<std::byte> out) const override;
  std::span<const std::byte> Whole() const override { return bytes_; }
  std::span<const std::byte> bytes_;
};

}  // namespace firewatch::symbolizer
