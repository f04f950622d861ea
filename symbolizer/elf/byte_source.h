// SPDX-License-Identifier: Apache-2.0
// Bytes of a foreign file, fetched in pieces. Never mapped: a mapped file that its owner truncates
// raises SIGBUS, a read that comes up short is an error like any other.
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

 protected:
  explicit ByteSource(uint64_t size) : size_(size) {}

 private:
  // `out` lies within size().
  virtual absl::Status ReadInside(uint64_t offset, std::span<std::byte> out) const = 0;
  uint64_t size_;
};

// Reads with pread(2). Does not own the descriptor.
class FdByteSource final : public ByteSource {
 public:
  explicit FdByteSource(int fd);

 private:
  absl::Status ReadInside(uint64_t offset, std::span<std::byte> out) const override;
  int fd_;
};

// `bytes` must outlive the source.
class SpanByteSource final : public ByteSource {
 public:
  explicit SpanByteSource(std::span<const std::byte> bytes)
      : ByteSource(bytes.size()), bytes_(bytes) {}

 private:
  absl::Status ReadInside(uint64_t offset, std::span<std::byte> out) const override;
  std::span<const std::byte> bytes_;
};

}  // namespace firewatch::symbolizer
