// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/process/open_below.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "base/status.h"

namespace firewatch::symbolizer {
namespace {

constexpr int kMaxLinks = 40;  // the kernel's own limit

base::UniqueFd OpenRoot(const std::string& root) {
  return base::UniqueFd(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
}

base::UniqueFd Fail(int error) {
  errno = error;
  return {};
}

// Puts the components of `path` on the stack, the first one on top.
void Push(std::string_view path, std::vector<std::string>* stack) {
  while (!path.empty()) {
    const size_t slash = path.rfind('/');
    const std::string_view part = slash == std::string_view::npos ? path : path.substr(slash + 1);
    if (!part.empty() && part != ".") stack->emplace_back(part);
    path = slash == std::string_view::npos ? "" : path.substr(0, slash);
  }
}

std::string ReadLinkOf(int path_fd) {
  std::string target(4096, '\0');
  const ssize_t size = ::readlinkat(path_fd, "", target.data(), target.size());
  target.resize(size < 0 ? 0 : static_cast<size_t>(size));
  return target;
}

}  // namespace

base::UniqueFd OpenPathBelowByStep(const std::string& root, std::string_view path) {
  std::vector<base::UniqueFd> place;  // from the root down to where we are
  place.push_back(OpenRoot(root));
  if (!place.back().valid()) return {};
  std::vector<std::string> left;
  Push(path, &left);
  for (int links = 0; !left.empty();) {
    const std::string part = std::move(left.back());
    left.pop_back();
    if (part == "..") {
      if (place.size() > 1) place.pop_back();
      continue;
    }
    base::UniqueFd next(
        ::openat(place.back().get(), part.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!next.valid()) return {};
    struct stat info{};
    if (::fstat(next.get(), &info) != 0) return {};
    if (S_ISLNK(info.st_mode)) {
      if (++links > kMaxLinks) return Fail(ELOOP);
      const std::string target = ReadLinkOf(next.get());
      if (target.empty()) return Fail(ENOENT);
      if (target.front() == '/') place.resize(1);
      Push(target, &left);
      continue;
    }
    if (left.size() > 4096) return Fail(ENAMETOOLONG);
    place.push_back(std::move(next));
  }
  return std::move(place.back());
}

base::UniqueFd OpenPathBelow(const std::string& root, std::string_view path) {
  const base::UniqueFd directory = OpenRoot(root);
  if (!directory.valid()) return {};
  const std::string terminated(path);
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  const long fd = ::syscall(SYS_openat2, directory.get(), terminated.c_str(), &how, sizeof(how));
  if (fd >= 0 || errno != ENOSYS) return base::UniqueFd(static_cast<int>(fd));
  return OpenPathBelowByStep(root, path);
}

absl::StatusOr<base::UniqueFd> ReopenRegular(int path_fd, std::string_view name,
                                             struct stat* info) {
  struct stat own{};
  if (info == nullptr) info = &own;
  if (::fstat(path_fd, info) != 0) return base::ErrnoStatus(errno, fmt::format("stat {}", name));
  if (!S_ISREG(info->st_mode)) return base::InvalidArgument("{}: not a regular file", name);
  const std::string self = fmt::format("/proc/self/fd/{}", path_fd);
  base::UniqueFd fd(::open(self.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd.valid()) return base::ErrnoStatus(errno, fmt::format("open {}", name));
  return fd;
}

absl::StatusOr<base::UniqueFd> OpenRegularBelow(const std::string& root, std::string_view path,
                                                struct stat* info) {
  const base::UniqueFd fd = OpenPathBelow(root, path);
  if (!fd.valid()) return base::ErrnoStatus(errno, fmt::format("open {}", path));
  return ReopenRegular(fd.get(), path, info);
}

}  // namespace firewatch::symbolizer
