// SPDX-License-Identifier: Apache-2.0
// From opened files to a whole symbol index: one ELF file, and what belongs to it. Runs in the
// sandboxed helper, in `firewatch symbolize` and in tests; never in the agent or the server.
//
// 1. The files are opened and compared: a separate debug file must have the executable's build id
//    or, where one of both has none, the CRC of its .gnu_debuglink; a dwz file the build id of the
//    .gnu_debugaltlink. A file that does not fit is left out, with the reason.
// 2. Symbols: .symtab and .dynsym of the executable, .symtab of .gnu_debugdata, .symtab of the
// debug
//    file; Go's own table. Nothing else is read: that answer takes milliseconds for any size.
// 3. Lines, when asked for: sections of DWARF are mapped, compressed ones inflated into an unlinked
//    file and mapped (elf/elf_file.h), read by dwarf/, written by index/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/unique_fd.h"
#include "symbolizer/elf/elf_reader.h"
#include "symbolizer/file_identity.h"

namespace firewatch::symbolizer {

struct DwarfInput;  // dwarf/input.h
class ElfFile;      // elf/elf_file.h

// Why an index has no lines, or why a name is missing. Stored and sent: numbers stay.
enum class LinesReason : uint8_t {
  kHasLines = 0,
  kNotTried = 1,     // only symbols were asked for so far
  kNoDebugInfo = 2,  // neither the file nor a debug file has any
  kMismatch = 3,     // a debug file was there, of another build
  kOverBudget = 4,   // needs more memory, time or disk than allowed
  kDamaged = 5,      // malformed
};
std::string_view LinesReasonText(LinesReason reason);

// Descriptors, all borrowed for the call and opened O_RDONLY; -1: not there. At least one of `elf`
// and `debug`.
struct ObjectFds {
  int elf = -1;      // the file that runs
  int debug = -1;    // its separate debug file
  int alt = -1;      // dwz's common file
  int dwp = -1;      // package of split DWARF
  int scratch = -1;  // O_RDWR, empty, unlinked: room for inflated sections. -1: a memfd
};

// A .dwo by the names in a skeleton unit; an invalid descriptor when it cannot be had. One call at
// a time. Its dwo id is compared by the reader.
using DwoOpener =
    std::function<base::UniqueFd(std::string_view name, std::string_view compilation_directory)>;

struct ObjectOptions {
  ElfLimits limits;
  // Of all inflated sections together; more is kOverBudget.
  uint64_t max_inflated_bytes = uint64_t{8} << 30;
  // May read the whole debug file for its CRC (1 GB/s) when build ids cannot tell.
  bool check_crc = true;
  DwoOpener open_dwo;  // may be empty
};

// What one ELF file says of itself and of others. Cheap: headers and notes.
struct ObjectFacts {
  BuildId id;  // of the file; when it has none, a hash (`has_pseudo_id`)
  bool has_pseudo_id = false;
  bool has_symtab = false;
  bool has_dynsym = false;
  bool has_dwarf = false;        // .debug_info, or .zdebug_info
  bool has_split_dwarf = false;  // its .debug_info is small beside a .debug_addr: .dwo or .dwp
  std::string debuglink;         // file name without directory; "" none
  uint32_t debuglink_crc = 0;
  std::string altlink;  // path, absolute or relative to the file's directory; "" none
  BuildId altlink_id;
  uint64_t file_bytes = 0;
  std::vector<ElfSegment> executable_segments;  // PT_LOAD with PF_X; empty in a debug file's own
};
absl::StatusOr<ObjectFacts> ReadObjectFacts(const ElfReader& elf);

// The opened files. One home thread but for the spans, which any thread may read. What it hands out
// lives as long as it does. Files that are truncated meanwhile raise SIGBUS: see above who may.
class ObjectFiles {
 public:
  // Errors of the first file (elf, or debug when there is none) are returned as ElfReader::Open
  // gives them. A further file that is malformed or does not fit is left out: companion_status().
  static absl::StatusOr<std::unique_ptr<ObjectFiles>> Open(const ObjectFds& fds,
                                                           ObjectOptions options);
  ~ObjectFiles();
  ObjectFiles(const ObjectFiles&) = delete;
  ObjectFiles& operator=(const ObjectFiles&) = delete;

  // Of the file that runs, else of the debug file.
  const ObjectFacts& facts() const { return facts_; }
  // Why a file that was given is not used: FailedPrecondition "debug file mismatch: ...", or
  // InvalidArgument. OK when every one is.
  const absl::Status& companion_status() const { return companion_status_; }

  // nullptr when not there (or left out).
  ElfFile* elf() { return elf_.get(); }
  ElfFile* debug() { return debug_.get(); }
  // The one whose DWARF counts: the debug file's when it has any, else the executable's.
  ElfFile* dwarf_file() { return dwarf_file_; }
  // The ELF file inside .gnu_debugdata, unpacked; nullptr when there is none or it is damaged.
  ElfFile* mini_debug();

  // Maps (inflates) what lines need. NotFound: no DWARF; ResourceExhausted; InvalidArgument.
  absl::StatusOr<const DwarfInput*> Dwarf();
  // Bytes that were inflated so far.
  uint64_t inflated_bytes() const;

 private:
  struct Split;
  explicit ObjectFiles(ObjectOptions options);
  absl::Status OpenAll(const ObjectFds& fds);

  const ObjectOptions options_;
  ObjectFacts facts_;
  absl::Status companion_status_;
  std::unique_ptr<ElfFile> elf_;
  std::unique_ptr<ElfFile> debug_;
  std::unique_ptr<ElfFile> alt_;
  std::unique_ptr<ElfFile> dwp_;
  std::unique_ptr<ElfFile> mini_debug_;
  bool mini_debug_tried_ = false;
  ElfFile* dwarf_file_ = nullptr;
  std::unique_ptr<DwarfInput> dwarf_;
  std::unique_ptr<Split> split_;  // opened .dwo files and the scratch file
};

struct IndexBuildOptions {
  bool lines = false;
  unsigned threads = 1;  // of lines; the result is the same for any number
};

struct IndexBuildReport {
  uint64_t symbols = 0;  // ranges with a name
  uint64_t index_bytes = 0;
  LinesReason lines = LinesReason::kNotTried;
  std::string lines_text;    // "" or the whole reason
  uint64_t dwarf_bytes = 0;  // of the sections that were read
};

// Writes from offset 0 of `out_fd` (seekable, empty). An index without lines is no error: the
// report says why. Errors: symbols cannot be read (as ElfReader), or `out_fd` cannot be written
// (Internal).
absl::StatusOr<IndexBuildReport> BuildIndex(ObjectFiles& files, const IndexBuildOptions& options,
                                            int out_fd);

}  // namespace firewatch::symbolizer
