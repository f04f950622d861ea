// SPDX-License-Identifier: Apache-2.0
#include "agent/core/write_token.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "base/status.h"
#include "base/unique_fd.h"

namespace firewatch::agent {
namespace {

constexpr size_t kTokenBytes = 32;

std::string RuntimeDirectory() {
  if (::geteuid() == 0) return "/run/firewatch";
  if (const char* runtime = std::getenv("XDG_RUNTIME_DIR"); runtime != nullptr && *runtime == '/') {
    return fmt::format("{}/firewatch", runtime);
  }
  const char* home = std::getenv("HOME");
  return fmt::format("{}/.local/state/firewatch", home == nullptr ? "/nonexistent" : home);
}

}  // namespace

std::string WriteTokenPath(uint16_t port) {
  return fmt::format("{}/agent-{}.token", RuntimeDirectory(), port);
}

absl::StatusOr<std::string> CreateWriteToken(const std::string& path) {
  const std::string directory = std::filesystem::path(path).parent_path();
  std::error_code error;
  if (std::filesystem::create_directories(directory, error)) ::chmod(directory.c_str(), 0700);
  if (error) return base::FailedPrecondition("{}: {}", directory, error.message());
  std::array<unsigned char, kTokenBytes> random{};
  if (::getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size())) {
    return base::ErrnoStatus(errno, "getrandom");
  }
  std::string token;
  for (const unsigned char byte : random) token += fmt::format("{:02x}", byte);
  // Never written through a link, or into a file that others have open.
  const std::string fresh = fmt::format("{}.{}", path, ::getpid());
  ::unlink(fresh.c_str());
  const base::UniqueFd file(
      ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file.valid()) return base::ErrnoStatus(errno, fresh);
  if (::write(file.get(), token.data(), token.size()) != static_cast<ssize_t>(token.size()) ||
      ::rename(fresh.c_str(), path.c_str()) != 0) {
    const int code = errno;
    ::unlink(fresh.c_str());
    return base::ErrnoStatus(code, path);
  }
  return token;
}

absl::StatusOr<std::string> ReadWriteToken(const std::string& path) {
  const base::UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) {
    const int code = errno;
    if (code == EACCES || code == EPERM) {
      return base::PermissionDenied("{}: only root may change what the agent does", path);
    }
    return base::NotFound("{}: no agent of this user listens there", path);
  }
  std::string token(2 * kTokenBytes, '\0');
  const ssize_t got = ::read(file.get(), token.data(), token.size());
  if (got != static_cast<ssize_t>(token.size())) return base::DataLoss("{}: is no token", path);
  return token;
}

void RemoveWriteToken(const std::string& path, std::string_view token) {
  if (const auto there = ReadWriteToken(path); there.ok() && *there == token)
    ::unlink(path.c_str());
}

bool BearsToken(std::string_view authorization, std::string_view token) {
  constexpr std::string_view kScheme = "Bearer ";
  if (token.empty() || !authorization.starts_with(kScheme)) return false;
  const std::string_view given = authorization.substr(kScheme.size());
  if (given.size() != token.size()) return false;
  unsigned char difference = 0;
  for (size_t i = 0; i < token.size(); ++i) {
    difference |= static_cast<unsigned char>(given[i] ^ token[i]);
  }
  return difference == 0;
}

}  // namespace firewatch::agent
