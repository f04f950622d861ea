// SPDX-License-Identifier: Apache-2.0
// Errors that are expected (a process is gone, an ELF is odd, the server is away) travel as
// absl::Status or absl::StatusOr<T>. This file is the one bridge between std:: string types and
// Debian's Abseil, which is built with a string_view of its own: nobody outside base/ includes
// absl/strings.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace firewatch::base {

// Makes a status from any std:: string. The message says what, which and why.
absl::Status MakeStatus(absl::StatusCode code, std::string_view message);

// "open /proc/42/maps: No such process": maps errno to the nearest status code
// (ENOENT, ESRCH -> NotFound; EACCES, EPERM -> PermissionDenied; ENOSPC -> ResourceExhausted;
// EEXIST -> AlreadyExists; EINVAL -> InvalidArgument; else Unavailable).
absl::Status ErrnoStatus(int error_number, std::string_view what);

// Puts "context: " before the message. OK stays OK.
absl::Status Annotate(const absl::Status& status, std::string_view context);

// The message as a std::string_view; valid as long as the status.
std::string_view Message(const absl::Status& status);

// "NOT_FOUND: open /proc/42/maps: No such process", for logs and terminals.
std::string ToString(const absl::Status& status);

template <typename... Args>
absl::Status InvalidArgument(fmt::format_string<Args...> format, Args&&... args) {
  return MakeStatus(absl::StatusCode::kInvalidArgument,
                    fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
absl::Status NotFound(fmt::format_string<Args...> format, Args&&... args) {
  return MakeStatus(absl::StatusCode::kNotFound, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
absl::Status DataLoss(fmt::format_string<Args...> format, Args&&... args) {
  return MakeStatus(absl::StatusCode::kDataLoss, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
absl::Status Unavailable(fmt::format_string<Args...> format, Args&&... args) {
  return MakeStatus(absl::StatusCode::kUnavailable,
                    fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
absl::Status ResourceExhausted(fmt::format_string<Args...> format, Args&&... args) {
  return MakeStatus(absl::StatusCode::kResourceExhausted,
                    fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
absl::Status PermissionDenied(fmt::format_string<Args...> format, Args&&... args) {
  return MakeStatus(absl::StatusCode::kPermissionDenied,
                    fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
absl::Status FailedPrecondition(fmt::format_string<Args...> format, Args&&... args) {
  return MakeStatus(absl::StatusCode::kFailedPrecondition,
                    fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
absl::Status Internal(fmt::format_string<Args...> format, Args&&... args) {
  return MakeStatus(absl::StatusCode::kInternal, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace firewatch::base

// Passes an error on to the caller; the value of the expression is a Status.
#define RETURN_IF_ERROR(expression)                                                     \
  do {                                                                                  \
    if (absl::Status status_of_expression = (expression); !status_of_expression.ok()) { \
      return status_of_expression;                                                      \
    }                                                                                   \
  } while (false)

#define FIREWATCH_CONCAT_INNER(a, b) a##b
#define FIREWATCH_CONCAT(a, b) FIREWATCH_CONCAT_INNER(a, b)

// ASSIGN_OR_RETURN(auto file, MappedFile::Open(path));
#define ASSIGN_OR_RETURN(target, expression) \
  ASSIGN_OR_RETURN_IMPL(FIREWATCH_CONCAT(status_or_, __LINE__), target, expression)
#define ASSIGN_OR_RETURN_IMPL(temporary, target, expression) \
  auto temporary = (expression);                             \
  if (!temporary.ok()) return temporary.status();            \
  target = std::move(temporary).value()
