// SPDX-License-Identifier: Apache-2.0
// Finds files that belong to an ELF file: separate debug file, dwz's common file, package of split
// DWARF, .dwo. They are named by strangers (a section of the file, a file system of a container),
// so: paths are resolved inside the root of the process (RESOLVE_IN_ROOT: no link leads out), files
// are opened with O_PATH first and for reading only once they are known to be regular (a FIFO would
// wait), and nothing is parsed here: whether a candidate is the right one is the helper's answer
// (build id, CRC); ask for the next one when it is not.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/unique_fd.h"
#include "symbolizer/file_identity.h"

namespace firewatch::symbolizer {

enum class DebugFileKind : uint8_t {
  kDebug,  // .debug: by build id and .gnu_debuglink
  kAlt,    // dwz's: by build id and .gnu_debugaltlink
  kDwp,    // split DWARF in one package beside the file
  kDwo,    // split DWARF of one unit
};

struct DebugFileQuery {
  DebugFileKind kind = DebugFileKind::kDebug;
  // The file that names the other one, as its process sees it: "/usr/bin/x"; for kAlt the file with
  // the .gnu_debugaltlink, which mostly is the debug file.
  std::string path;
  BuildId id;        // kDebug: of the file; kAlt: of .gnu_debugaltlink; else unused
  std::string name;  // kDebug: debuglink; kAlt: altlink; kDwo: DW_AT_dwo_name
  std::string compilation_directory;  // kDwo
  std::string debug_path;             // kDwp, kDwo: the debug file's path; "" none
};

// Paths in the order in which they are tried, absolute, without empty or repeated ones; names with
// a zero byte or longer than PATH_MAX give none. kDebug, for /usr/bin/x, id abcdef and link
// x.debug:
//   /usr/lib/debug/.build-id/ab/cdef.debug, /usr/bin/x.debug, /usr/bin/.debug/x.debug,
//   /usr/lib/debug/usr/bin/x.debug, /usr/lib/debug/bin/x.debug (from before /usr was merged).
//   Without a link the name is the file's own with ".debug".
// kAlt: the name (relative to the directory of `path`), the same below /usr/lib/debug/.dwz,
//   /usr/lib/debug/.build-id/xx/rest.debug. kDwp: path + ".dwp", debug_path + ".dwp" and without
//   ".debug". kDwo: the name in the compilation directory, the name and its last part in the
//   directories of `path` and `debug_path`.
std::vector<std::string> DebugFileCandidates(const DebugFileQuery& query);

struct DebugFileRoots {
  uint32_t pid = 0;         // 0: none
  uint32_t parent_pid = 0;  // for a process that is gone; 0: none
  std::string proc_root = "/proc";
  bool own_root = true;  // after the process's
};

struct OpenedDebugFile {
  base::UniqueFd fd;  // O_RDONLY, a regular file
  std::string path;   // inside its root
  int place = 0;      // ask again with place + 1 when it is the wrong one
};

// The first candidate that is a regular, readable file, from `first_place` on: all candidates in
// the root of the process, then all in the own root. `not_fd`: a file that is skipped wherever it
// is met (a debuglink may name the file itself); -1: none. NotFound when there is no further one.
// System calls on the caller's thread; never waits on a FIFO, but may on a hung network file
// system.
absl::StatusOr<OpenedDebugFile> OpenDebugFile(const DebugFileQuery& query,
                                              const DebugFileRoots& roots, int not_fd,
                                              int first_place = 0);

}  // namespace firewatch::symbolizer
