// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/process/mapped_object.h"

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/status.h"
#include "symbolizer/process/open_below.h"

namespace firewatch::symbolizer {
namespace {

constexpr int kPlaces = 5;
constexpr std::string_view kDeleted = " (deleted)";

std::string_view WithoutDeleted(std::string_view path) {
  if (path.ends_with(kDeleted)) path.remove_suffix(kDeleted.size());
  return path;
}

bool IsTheFile(const FileIdentity& file, const struct stat& info) {
  if (file.inode == 0) return true;
  if (info.st_ino != file.inode) return false;
  const uint32_t device_major = ::major(info.st_dev);
  return device_major == 0 || file.device_major == 0 ||
         (device_major == file.device_major && ::minor(info.st_dev) == file.device_minor);
}

// The target of the link, for files whose inode number overlayfs shows differently.
std::string ReadLink(const std::string& path) {
  std::string target(4096, '\0');
  const ssize_t size = ::readlink(path.c_str(), target.data(), target.size());
  target.resize(size < 0 ? 0 : static_cast<size_t>(size));
  return target;
}

class Opener {
 public:
  Opener(const FileIdentity& file, const MappingHint& hint, const std::string& proc_root)
      : file_(file), hint_(hint), proc_root_(proc_root), path_(WithoutDeleted(file.path)) {}

  absl::StatusOr<base::UniqueFd> TryPlace(int place) const {
    switch (place) {
      case 0:
        if (hint_.map_end == 0) return base::NotFound("no mapping known");
        return TryLink(fmt::format("{}/{}/map_files/{:x}-{:x}", proc_root_, hint_.pid,
                                   hint_.map_start, hint_.map_end));
      case 1:
        return TryExe(fmt::format("{}/{}/exe", proc_root_, hint_.pid));
      case 2:
        return TryRoot(fmt::format("{}/{}/root", proc_root_, hint_.pid));
      case 3:
        if (hint_.parent_pid == 0) return base::NotFound("no parent known");
        return TryRoot(fmt::format("{}/{}/root", proc_root_, hint_.parent_pid));
      default:
        return TryRoot("/");
    }
  }

 private:
  absl::StatusOr<base::UniqueFd> TryLink(const std::string& link) const {
    const base::UniqueFd fd(::open(link.c_str(), O_PATH | O_CLOEXEC));
    if (!fd.valid()) return base::ErrnoStatus(errno, fmt::format("open {}", link));
    return Check(fd.get(), link, WithoutDeleted(ReadLink(link)) == path_);
  }
  // Only for the main program: for its libraries this is another file, and an identity without an
  // inode could not tell.
  absl::StatusOr<base::UniqueFd> TryExe(const std::string& link) const {
    if (file_.inode == 0 && WithoutDeleted(ReadLink(link)) != path_) {
      return base::NotFound("{}: another program", link);
    }
    return TryLink(link);
  }
  absl::StatusOr<base::UniqueFd> TryRoot(const std::string& root) const {
    if (!path_.starts_with('/')) return base::NotFound("{}: not a path", path_);
    const base::UniqueFd fd = OpenPathBelow(root, path_);
    if (!fd.valid()) return base::ErrnoStatus(errno, fmt::format("open {}", path_));
    return Check(fd.get(), std::string(path_), false);
  }
  // `same_path`: the kernel itself says that the link leads to the path of the mapping.
  absl::StatusOr<base::UniqueFd> Check(int path_fd, const std::string& name, bool same_path) const {
    struct stat info{};
    ASSIGN_OR_RETURN(base::UniqueFd fd, ReopenRegular(path_fd, name, &info));
    const bool anonymous_device = ::major(info.st_dev) == 0 || file_.device_major == 0;
    if (!IsTheFile(file_, info) && !(same_path && anonymous_device)) {
      return base::FailedPrecondition("{}: not the file that was mapped", name);
    }
    return fd;
  }

  const FileIdentity& file_;
  const MappingHint& hint_;
  const std::string& proc_root_;
  const std::string_view path_;
};

// The most telling of several reasons: another file, no regular file, no permission, then the rest.
int Weight(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kFailedPrecondition:
      return 3;
    case absl::StatusCode::kInvalidArgument:
      return 2;
    case absl::StatusCode::kPermissionDenied:
      return 1;
    default:
      return 0;
  }
}

}  // namespace

absl::StatusOr<OpenedObject> OpenMappedObject(const FileIdentity& file, const MappingHint& hint,
                                              const std::string& proc_root, int first_place) {
  const Opener opener(file, hint, proc_root);
  absl::Status reason = base::NotFound("{}: gone", file.path);
  for (int place = first_place; place < kPlaces; ++place) {
    auto fd = opener.TryPlace(place);
    if (fd.ok()) return OpenedObject{.fd = *std::move(fd), .place = place};
    // /proc/PID/exe of a library's process is another file by nature: no reason to report.
    const bool telling = place >= 2 || Weight(fd.status()) < 3;
    if (telling && Weight(fd.status()) >= Weight(reason)) reason = fd.status();
  }
  return reason;
}

}  // namespace firewatch::symbolizer
