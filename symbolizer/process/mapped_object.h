// SPDX-License-Identifier: Apache-2.0
// Opens the file behind a mapping of some process: the very file, not one that has its path by now.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/unique_fd.h"
#include "symbolizer/file_identity.h"

namespace firewatch::symbolizer {

struct MappingHint {
  uint32_t pid = 0;
  uint32_t parent_pid = 0;  // 0: none
  uint64_t map_start = 0;
  uint64_t map_end = 0;
};

struct OpenedObject {
  base::UniqueFd fd;  // O_RDONLY, a regular file
  int place = 0;      // where it was found; ask again with place + 1 when it is the wrong one
};

// Places are tried in this order, from `first_place`:
//   0 /proc/PID/map_files/START-END   also for deleted files and memfds; needs CAP_SYS_ADMIN or
//                                     CAP_CHECKPOINT_RESTORE
//   1 /proc/PID/exe                   a deleted main program, without that capability
//   2 /proc/PID/root + path, 3 the same of the parent (for a process that is gone), 4 own root
// Paths are resolved inside that root (RESOLVE_IN_ROOT: a link of a container never leads out of
// it). Files are opened with O_PATH first and for reading only once they are known to be regular:
// opening a FIFO waits, opening a device can do anything.
//
// Compared with the identity: the inode, and the device unless one of both is anonymous (overlayfs
// and btrfs report different ones in /proc/PID/maps and stat). Identities without an inode (MMAP2
// with build id) pass here; the caller compares the build id once it is read.
// NotFound, PermissionDenied, FailedPrecondition (another file is there), InvalidArgument (not a
// regular file). Everything here is system calls on the caller's thread.
absl::StatusOr<OpenedObject> OpenMappedObject(const FileIdentity& file, const MappingHint& hint,
                                              const std::string& proc_root, int first_place = 0);

// "" when `path` can be a file; else what it is: "anonymous memory", "a kernel mapping" …
// "[vdso]" counts as a file: CopyOwnVdso.
std::string_view WhyNotAFile(std::string_view path);

bool IsVdso(std::string_view path);

// The vdso of this very process in a memfd: the kernel maps one image into every 64-bit process.
absl::StatusOr<base::UniqueFd> CopyOwnVdso();

}  // namespace firewatch::symbolizer
