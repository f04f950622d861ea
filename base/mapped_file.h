// SPDX-License-Identifier: Apache-2.0
// A whole file mapped read-only. Only for files that Firewatch wrote itself and that nobody
// truncates: a foreign file that shrinks while mapped raises SIGBUS (read those with pread).
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace firewatch::base {

class MappedFile {
 public:
  // NotFound, PermissionDenied, or InvalidArgument when it is not a regular file.
  static absl::StatusOr<MappedFile> Open(const std::string& path);
  // Maps what `fd` refers to; the descriptor stays the caller's.
  static absl::StatusOr<MappedFile> FromFd(int fd, const std::string& name);

  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  // Valid as long as this object.
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace firewatch::base
