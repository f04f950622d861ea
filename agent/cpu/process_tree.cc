// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/process_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "base/hash.h"
#include "base/unique_fd.h"

namespace firewatch::agent {
namespace {

struct DirectoryCloser {
  void operator()(DIR* directory) const { ::closedir(directory); }
};

std::optional<uint32_t> ParseNumber(std::string_view text) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return value;
}

// "42 (any ) name) S 7 …": the parent is the second field after the last parenthesis.
std::optional<uint32_t> ParentOf(const std::string& stat_path) {
  const base::UniqueFd fd(::open(stat_path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return std::nullopt;
  std::array<char, 512> buffer;
  const ssize_t size = ::read(fd.get(), buffer.data(), buffer.size());
  if (size <= 0) return std::nullopt;
  const std::string_view text(buffer.data(), static_cast<size_t>(size));
  const size_t end_of_name = text.rfind(')');
  if (end_of_name == std::string_view::npos || end_of_name + 4 >= text.size()) return std::nullopt;
  return ParseNumber(text.substr(end_of_name + 4));
}

using Children = absl::flat_hash_map<uint32_t, std::vector<uint32_t>>;

Children ReadChildren(const std::string& proc_root) {
  Children children;
  const std::unique_ptr<DIR, DirectoryCloser> directory(::opendir(proc_root.c_str()));
  if (!directory) return children;
  while (const dirent* entry = ::readdir(directory.get())) {
    const auto pid = ParseNumber(entry->d_name);
    if (!pid) continue;
    if (const auto parent = ParentOf(proc_root + "/" + entry->d_name + "/stat")) {
      children[*parent].push_back(*pid);
    }
  }
  return children;
}

}  // namespace

std::vector<Pid> LivingDescendants(const std::vector<Pid>& roots, const std::string& proc_root) {
  const Children children = ReadChildren(proc_root);
  std::vector<Pid> found;
  absl::flat_hash_set<uint32_t> seen;
  for (const Pid root : roots) {
    if (seen.insert(static_cast<uint32_t>(root)).second) found.push_back(root);
  }
  for (size_t i = 0; i < found.size(); ++i) {
    const auto it = children.find(static_cast<uint32_t>(found[i]));
    if (it == children.end()) continue;
    for (const uint32_t child : it->second) {
      if (seen.insert(child).second) found.push_back(Pid{child});
    }
  }
  return found;
}

}  // namespace firewatch::agent
