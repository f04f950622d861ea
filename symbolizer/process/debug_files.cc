// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/process/debug_files.h"

#include <sys/stat.h>

#include <algorithm>
#include <climits>
#include <utility>

#include "base/status.h"
#include "symbolizer/process/open_below.h"

namespace firewatch::symbolizer {
namespace {

constexpr std::string_view kDebugRoot = "/usr/lib/debug";
constexpr std::string_view kDeleted = " (deleted)";
constexpr std::string_view kDebugSuffix = ".debug";

// With the slash; "" when `path` is not absolute.
std::string_view DirectoryOf(std::string_view path) {
  if (!path.starts_with('/')) return "";
  return path.substr(0, path.rfind('/') + 1);
}
std::string_view LastPartOf(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}
std::string_view Without(std::string_view path, std::string_view suffix) {
  if (path.ends_with(suffix)) path.remove_suffix(suffix.size());
  return path;
}

// The paths in order, each once, all of them usable.
class Paths {
 public:
  template <typename... Parts>
  void Add(const Parts&... parts) {
    std::string path;
    (path.append(parts), ...);
    const bool usable = path.starts_with('/') && path.size() < PATH_MAX && !path.ends_with('/') &&
                        path.find('\0') == std::string::npos;
    if (usable && std::find(paths_.begin(), paths_.end(), path) == paths_.end()) {
      paths_.push_back(std::move(path));
    }
  }
  void AddById(const BuildId& id) {
    const std::string hex = id.ToHex();
    if (hex.size() < 4) return;
    Add(kDebugRoot, "/.build-id/", hex.substr(0, 2), "/", hex.substr(2), kDebugSuffix);
  }
  std::vector<std::string> Take() { return std::move(paths_); }

 private:
  std::vector<std::string> paths_;
};

void AddDebug(const DebugFileQuery& query, std::string_view path, Paths* paths) {
  paths->AddById(query.id);
  const std::string_view directory = DirectoryOf(path);
  if (directory.empty()) return;
  std::string name = query.name;
  if (name.empty()) name = std::string(LastPartOf(path)).append(kDebugSuffix);
  if (name.find('/') != std::string::npos || name == "." || name == "..") return;
  paths->Add(directory, name);
  paths->Add(directory, ".debug/", name);
  paths->Add(kDebugRoot, directory, name);
  if (directory.starts_with("/usr/")) paths->Add(kDebugRoot, directory.substr(4), name);
}

void AddAlt(const DebugFileQuery& query, std::string_view path, Paths* paths) {
  if (query.name.starts_with('/')) {
    paths->Add(query.name);
  } else if (!query.name.empty()) {
    if (const auto directory = DirectoryOf(path); !directory.empty()) {
      paths->Add(directory, query.name);
    }
  }
  if (!query.name.empty()) paths->Add(kDebugRoot, "/.dwz/", LastPartOf(query.name));
  paths->AddById(query.id);
}

void AddDwo(const DebugFileQuery& query, std::string_view path, Paths* paths) {
  if (query.name.empty()) return;
  if (query.name.starts_with('/')) {
    paths->Add(query.name);
  } else {
    paths->Add(query.compilation_directory, "/", query.name);
  }
  for (const std::string_view near : {path, std::string_view(query.debug_path)}) {
    const std::string_view directory = DirectoryOf(near);
    if (directory.empty()) continue;
    if (!query.name.starts_with('/')) paths->Add(directory, query.name);
    paths->Add(directory, LastPartOf(query.name));
  }
}

std::vector<std::string> RootsOf(const DebugFileRoots& roots) {
  std::vector<std::string> all;
  for (const uint32_t pid : {roots.pid, roots.parent_pid}) {
    if (pid != 0) all.push_back(fmt::format("{}/{}/root", roots.proc_root, pid));
  }
  if (roots.own_root) all.emplace_back("/");
  return all;
}

bool IsSameFile(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

}  // namespace

std::vector<std::string> DebugFileCandidates(const DebugFileQuery& query) {
  const std::string_view path = Without(query.path, kDeleted);
  Paths paths;
  switch (query.kind) {
    case DebugFileKind::kDebug:
      AddDebug(query, path, &paths);
      break;
    case DebugFileKind::kAlt:
      AddAlt(query, path, &paths);
      break;
    case DebugFileKind::kDwp:
      if (!path.empty()) paths.Add(path, ".dwp");
      if (!query.debug_path.empty()) {
        paths.Add(query.debug_path, ".dwp");
        paths.Add(Without(query.debug_path, kDebugSuffix), ".dwp");
      }
      break;
    case DebugFileKind::kDwo:
      AddDwo(query, path, &paths);
      break;
  }
  return paths.Take();
}

absl::StatusOr<OpenedDebugFile> OpenDebugFile(const DebugFileQuery& query,
                                              const DebugFileRoots& roots, int not_fd,
                                              int first_place) {
  const std::vector<std::string> paths = DebugFileCandidates(query);
  struct stat excluded{};
  const bool excludes = not_fd >= 0 && ::fstat(not_fd, &excluded) == 0;
  absl::Status reason = base::NotFound("no debug file");
  int place = 0;
  for (const std::string& root : RootsOf(roots)) {
    for (const std::string& path : paths) {
      if (place++ < first_place) continue;
      struct stat info{};
      auto fd = OpenRegularBelow(root, path, &info);
      if (!fd.ok()) {
        // A file that is there but may not be read says more than the many that are not.
        if (fd.status().code() != absl::StatusCode::kNotFound) {
          reason = base::NotFound("{}", base::Message(fd.status()));
        }
        continue;
      }
      if (excludes && IsSameFile(info, excluded)) continue;
      return OpenedDebugFile{.fd = *std::move(fd), .path = path, .place = place - 1};
    }
  }
  return reason;
}

}  // namespace firewatch::symbolizer
