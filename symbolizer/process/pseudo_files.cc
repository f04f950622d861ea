// SPDX-License-Identifier: Apache-2.0
// Mappings whose "path" is no path, and the one of them that has symbols.
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <fstream>
#include <string>
#include <utility>

#include "base/status.h"
#include "symbolizer/process/mapped_object.h"

namespace firewatch::symbolizer {
namespace {

constexpr size_t kMaxVdsoBytes = 1 << 20;

struct AddressRange {
  uint64_t start = 0;
  uint64_t end = 0;
};

// The line of /proc/self/maps that ends in [vdso].
absl::StatusOr<AddressRange> FindOwnVdso() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (!line.ends_with("[vdso]")) continue;
    AddressRange range;
    const char* end = line.data() + line.size();
    const auto first = std::from_chars(line.data(), end, range.start, 16);
    if (first.ec != std::errc() || first.ptr == end) break;
    const auto second = std::from_chars(first.ptr + 1, end, range.end, 16);
    if (second.ec != std::errc() || range.end <= range.start) break;
    return range;
  }
  return base::NotFound("no [vdso] in /proc/self/maps");
}

}  // namespace

std::string_view WhyNotAFile(std::string_view path) {
  if (IsVdso(path)) return "";
  if (path.empty() || path.starts_with("//anon") || path.starts_with("/dev/zero") ||
      path.starts_with("[anon") || path.starts_with("/SYSV") ||
      path.starts_with("/memfd:doublemapper")) {
    return "anonymous memory";
  }
  if (path.starts_with("[")) return "memory of the process or the kernel, no file";
  if (path.starts_with("anon_inode:") || path.starts_with("/anon_hugepage")) {
    return "anonymous memory";
  }
  return "";
}

bool IsVdso(std::string_view path) { return path == "[vdso]"; }

absl::StatusOr<base::UniqueFd> CopyOwnVdso() {
  ASSIGN_OR_RETURN(const AddressRange range, FindOwnVdso());
  const uint64_t size = range.end - range.start;
  if (size > kMaxVdsoBytes) return base::Internal("vdso of {} bytes", size);
  base::UniqueFd fd(::memfd_create("firewatch-vdso", MFD_CLOEXEC));
  if (!fd.valid()) return base::ErrnoStatus(errno, "make a memfd for the vdso");
  // The address comes from the kernel as text.
  // NOLINTNEXTLINE(performance-no-int-to-ptr)
  const ssize_t written = ::write(fd.get(), reinterpret_cast<const void*>(range.start), size);
  if (written != static_cast<ssize_t>(size)) return base::ErrnoStatus(errno, "copy the vdso");
  return fd;
}

}  // namespace firewatch::symbolizer
