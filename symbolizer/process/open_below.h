// SPDX-License-Identifier: Apache-2.0
// Opens files by names that strangers chose, inside a directory that stands for a root: "/" or
// "/proc/PID/root". Links, absolute ones and ".." too, are resolved inside of it and never lead
// out.
#pragma once

#include <sys/stat.h>

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/unique_fd.h"

namespace firewatch::symbolizer {

// An O_PATH descriptor of `path`, which is absolute, with errno otherwise (an invalid descriptor).
// openat2 (5.6 and newer); older kernels are served step by step.
base::UniqueFd OpenPathBelow(const std::string& root, std::string_view path);
// The same without openat2: one openat per component, links read and followed by hand.
base::UniqueFd OpenPathBelowByStep(const std::string& root, std::string_view path);

// Opens for reading what an O_PATH descriptor refers to, once it is known to be a regular file:
// opening a FIFO waits, opening a device can do anything. InvalidArgument when it is none.
// `info` (may be nullptr): its fstat.
absl::StatusOr<base::UniqueFd> ReopenRegular(int path_fd, std::string_view name,
                                             struct stat* info = nullptr);

// Both: a regular file below `root`, O_RDONLY. NotFound, PermissionDenied, InvalidArgument.
absl::StatusOr<base::UniqueFd> OpenRegularBelow(const std::string& root, std::string_view path,
                                                struct stat* info = nullptr);

}  // namespace firewatch::symbolizer
