// SPDX-License-Identifier: Apache-2.0
// From (file, file offset) to a name, and from a kernel address to a name. The face of this room:
// the agent includes this header, file_identity.h, debug_copies.h, debug_copy.h and
// unwind/unwind_table.h, nothing deeper.
//
// Bytes of foreign ELF files are never parsed in this process: a sandboxed helper process (no
// network, seccomp, rlimits, nice 10) reads the file from a descriptor and writes a symbol index,
// which is kept on disk per build id, mapped read-only and checked on every access.
//
// A file is answered twice: with the names of its symbol tables after milliseconds, then, as work
// of low priority (line_builds.h), with lines and inlined functions.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "base/metrics.h"
#include "base/unique_fd.h"
#include "symbolizer/cpu_budget.h"
#include "symbolizer/file_identity.h"
#include "symbolizer/unwind/unwind_table.h"

namespace firewatch::symbolizer {

// Dense, from 0. Names one file for as long as anybody keeps it (Symbolizer::ForgetUnused).
enum class FileId : uint32_t {};

// Ids that somebody keeps.
class FileSet {
 public:
  void Add(FileId file) {
    const auto id = static_cast<size_t>(file);
    if (id >= has_.size()) has_.resize(std::max(id + 1, has_.size() * 2));
    has_[id] = true;
  }
  bool contains(FileId file) const {
    const auto id = static_cast<size_t>(file);
    return id < has_.size() && has_[id];
  }

 private:
  std::vector<bool> has_;
};

enum class FileState : uint8_t {
  kNew,         // met in a mapping, never asked for
  kPending,     // the helper is at it
  kReady,       // index mapped
  kNoSymbols,   // parsed; has neither .symtab nor .dynsym
  kUnreadable,  // gone, or no permission, or not a regular file (reason says which)
  kRefused,     // the helper refused it: not an ELF of this machine, or hostile headers
};

// Why a frame has no name, or no line. Goes into every upload: the numbers are those of NameReason
// in proto/ingest.proto.
enum class NameReason : uint8_t {
  kNone = 0,  // it has what was asked for
  kPending = 1,
  kNoFile = 2,
  kNoBuildId = 3,
  kStripped = 4,
  kNoSymbols = 5,  // none covers the address
  kDebugMismatch = 6,
  kOverBudget = 7,
  kRefused = 8,
  kAnonymousMemory = 9,
  kUnknownMemory = 10,
  kKernelHidden = 11,
  kNoDebugInfo = 12,
  kLinesOff = 13,
};

// "stripped", for people.
std::string_view NameReasonText(NameReason reason);

struct FileInfo {
  std::string_view path;      // as the process saw it
  std::string_view build_id;  // lower-case hex; "" until known or when the file has none
  // The same; "pseudo-" and a hash of its size, first and last 4 KiB when the file has no build id.
  // What a profile's mapping is called by: without it a frame of such a file would be known by its
  // names alone, and become another one when they improve.
  std::string_view content_id;
  uint64_t size_bytes = 0;  // 0 until known
  FileState state = FileState::kNew;
  NameReason no_names = NameReason::kPending;  // kNone when it has some
  NameReason no_lines = NameReason::kPending;  // kNone when it has some
  std::string_view reason;                     // text of either; "" when it has both
};

// One function of an inline chain.
struct SymbolFrame {
  std::string_view name;         // demangled
  std::string_view system_name;  // as in the symbol table
  std::string_view file;         // "" when unknown
  uint32_t line = 0;             // 0 when unknown
  uint32_t start_line = 0;       // of the function; 0 when unknown
};

// The executable mapping that a runtime makes of its jitdump, so that profilers find the file.
struct JitMarker {
  FileId file{};
  uint64_t map_start = 0;
  uint64_t map_end = 0;
};

struct KernelSymbol {
  std::string_view name;
  std::string_view module;  // "" for the kernel proper, "bpf" for BPF programs
  bool found = false;
  bool pending = false;  // the list is being read: ask again after Poll
};

// Frames of samples were in a file: where it can be found now.
struct FileUse {
  FileIdentity file;
  BuildId id;
  uint32_t pid = 0;
  uint32_t parent_pid = 0;  // 0: none
  uint64_t map_start = 0;
  uint64_t map_end = 0;
  uint64_t frames = 0;
};

struct SymbolizerOptions {
  // Symbol indexes by build id; made if missing. "" = a temporary one, removed at the end.
  std::string cache_directory;
  uint64_t cache_max_bytes = uint64_t{1} << 30;
  std::string helper_path;                        // program to start as helper; "" = /proc/self/exe
  uint32_t helper_max_seconds = 60;               // CPU per file
  uint64_t helper_max_bytes = uint64_t{1} << 30;  // private memory of the helper
  // Lines and inlined functions, in a second helper (line_builds.h).
  bool lines = true;
  uint32_t lines_max_seconds = 30;               // CPU per file
  uint64_t lines_max_bytes = uint64_t{1} << 30;  // private memory of that helper
  CpuBudgetOptions lines_budget;
  std::string proc_root = "/proc";
  // Called within NoteUse for files with a build id (debug_copies.h); empty: not called.
  std::function<void(const FileUse&)> on_use;
};

// An executable PT_LOAD segment of a file: offset and size in the file, virtual address.
struct FileSegment {
  uint64_t file_offset = 0;
  uint64_t vaddr = 0;
  uint64_t file_size = 0;
};

// One home thread (the agent's profiler thread). What Info() returns stays valid as long as the
// file is kept; what Lookup() and LookupKernel() return points into mapped index files and stays
// valid until the next Poll(), which may unmap some: copy names that are kept longer.
class Symbolizer {
 public:
  // Starts without the helper; the helper is started by the first request and restarted when it
  // dies. `metrics` must outlive the object.
  static absl::StatusOr<std::unique_ptr<Symbolizer>> Create(SymbolizerOptions options,
                                                            base::MetricsRegistry& metrics);
  virtual ~Symbolizer() = default;

  // Cheap, no I/O: the same identity gives the same id. Pseudo files ("[vdso]", "//anon") too.
  virtual FileId Intern(const FileIdentity& file) = 0;

  // Asks for the file's symbols, once; later calls cost a compare. Opens the file now, through the
  // first of these that gives the right file (build id or device and inode are compared):
  // /proc/PID/map_files/START-END, /proc/PID/root + path, the same for `parent_pid`, own root.
  // Parsing happens in the helper; Poll collects the answers.
  virtual void Request(FileId file, uint32_t pid, uint32_t parent_pid, uint64_t map_start,
                       uint64_t map_end) = 0;

  // The file's unwind table. The first call asks for it as Request does for symbols (tables go
  // before names in the helper's queue). Unavailable while the helper is at it, or when the file
  // may be had later (another process may show it): ask again after Poll. Any other error is final
  // and says why the file has none.
  virtual absl::StatusOr<std::shared_ptr<const MappedUnwindTable>> UnwindTableOf(
      FileId file, uint32_t pid, uint32_t parent_pid, uint64_t map_start, uint64_t map_end) = 0;

  // The file itself, opened as Request does (the vdso as a copy), for readers that cannot wait for
  // the helper: the fallback samplers. Its bytes are a stranger's.
  virtual absl::StatusOr<base::UniqueFd> OpenFile(FileId file, uint32_t pid, uint32_t parent_pid,
                                                  uint64_t map_start, uint64_t map_end) = 0;

  // Takes what the helper has answered; waits up to `timeout_ms` for outstanding requests (0: does
  // not wait). Returns how many are still outstanding.
  virtual size_t Poll(int timeout_ms) = 0;

  // Lines come later than names, in an order that this tells: so many frames of samples were in
  // that file. Cheap; once per window and file.
  virtual void NoteUse(FileId file, uint64_t frames) = 0;
  // Waits up to `timeout_ms` for the lines that are under way or can be had within the budget.
  // Returns false when some are still to come.
  virtual bool WaitForLines(int timeout_ms) = 0;

  virtual FileInfo Info(FileId file) const = 0;
  // Empty until the file's index has been read, or when that has none.
  virtual std::vector<FileSegment> SegmentsOf(FileId file) = 0;

  // Fills `frames` with the functions at the offset, innermost inlined one first, and returns
  // kNone; or empties it and returns why there is no name: the file is not ready, or no symbol
  // covers the offset (symbols are bounded by their size: gaps stay unknown, names are never
  // invented).
  virtual NameReason Lookup(FileId file, uint64_t file_offset,
                            std::vector<SymbolFrame>* frames) = 0;

  // The process has code in memory without a file, and lives: finds what its runtime tells about
  // that code (jitdump, perf map) while it can be had. `incarnation` names one life of the process.
  // Once per window and process; cheap. `find_marker` is called at most once per life.
  virtual void RequestJit(uint32_t pid, uint64_t incarnation,
                          absl::FunctionRef<std::optional<JitMarker>()> find_marker) = 0;
  // As Lookup, by address. What was appended since RequestJit is read at the first call.
  virtual NameReason LookupJit(uint64_t incarnation, uint64_t address,
                               std::vector<SymbolFrame>* frames) = 0;

  // Asks for the kernel's symbols, once; cheap.
  virtual void RequestKernel() {}
  // They are being read; Poll takes them.
  virtual bool IsKernelPending() const { return false; }
  // Asks for them, and waits until they have been read: a minute at most.
  virtual void WaitForKernel() {}
  // Kernel text and modules from kallsyms, BPF programs from their own list; read again when
  // something has changed or an address is not known. Never waits.
  virtual KernelSymbol LookupKernel(uint64_t address) = 0;
  // "" when kernel names can be had, else the reason (kptr_restrict, no permission).
  virtual std::string_view KernelReason() = 0;

  // Files come and go: a machine that builds software maps thousands of new ones in an hour.
  // Forgets those that are not in `kept` and were not at the call before. `kept` names every id
  // that is held anywhere; calls are a minute apart. An id that was forgotten is given out again
  // after the next call, so that a sample which was on its way meets no other file. Files that the
  // helper is at stay. Returns the ids.
  virtual std::vector<FileId> ForgetUnused(const FileSet& kept) = 0;

  // CPU time of the helpers so far, those that have ended included.
  virtual uint64_t HelperCpuNs() const { return 0; }

  // Memory that the index files occupy as clean page cache, for /metrics.
  virtual uint64_t MappedBytes() const = 0;
};

// The helper's main loop: serves requests on the socket `fd` until it closes. Called by a binary
// started with the hidden argument `--symbol-helper FD`; enters the sandbox first. Returns the exit
// code. Both firewatch-agent and firewatch check for that argument before anything else.
int RunSymbolHelper(int fd);

// Itanium C++, Rust (legacy and v0), D; anything else comes back unchanged.
std::string Demangle(std::string_view mangled);

}  // namespace firewatch::symbolizer
