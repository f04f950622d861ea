// SPDX-License-Identifier: Apache-2.0
// From (file, file offset) to a name, and from a kernel address to a name. The face of this room:
// the agent includes this header, file_identity.h and unwind/unwind_table.h, nothing deeper.
//
// Bytes of foreign ELF files are never parsed in this process: a sandboxed helper process (no
// network, seccomp, rlimits, nice 10) reads the file from a descriptor and writes a symbol index,
// which is kept on disk per build id, mapped read-only and checked on every access.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/metrics.h"
#include "base/unique_fd.h"
#include "symbolizer/file_identity.h"
#include "symbolizer/unwind/unwind_table.h"

namespace firewatch::symbolizer {

// Dense, from 0, for the life of one Symbolizer.
enum class FileId : uint32_t {};

enum class FileState : uint8_t {
  kNew,         // met in a mapping, never asked for
  kPending,     // the helper is at it
  kReady,       // index mapped
  kNoSymbols,   // parsed; has neither .symtab nor .dynsym
  kUnreadable,  // gone, or no permission, or not a regular file (reason says which)
  kRefused,     // the helper refused it: not an ELF of this machine, or hostile headers
};

struct FileInfo {
  std::string_view path;      // as the process saw it
  std::string_view build_id;  // lower-case hex; "" until known or when the file has none
  uint64_t size_bytes = 0;    // 0 until known
  FileState state = FileState::kNew;
  std::string_view reason;  // why it has no names; "" when it has
};

struct Symbol {
  std::string_view name;         // demangled
  std::string_view system_name;  // as in the symbol table
};

struct KernelSymbol {
  std::string_view name;
  std::string_view module;  // "" for the kernel proper, "bpf" for BPF programs
  bool found = false;
};

struct SymbolizerOptions {
  // Symbol indexes by build id; made if missing. "" = a temporary one, removed at the end.
  std::string cache_directory;
  uint64_t cache_max_bytes = uint64_t{1} << 30;
  std::string helper_path;                        // program to start as helper; "" = /proc/self/exe
  uint32_t helper_max_seconds = 60;               // CPU per file
  uint64_t helper_max_bytes = uint64_t{1} << 30;  // private memory of the helper
  std::string proc_root = "/proc";
};

// One home thread (the agent's profiler thread). What Info() returns stays valid as long as the
// Symbolizer; what Lookup() and LookupKernel() return points into mapped index files and stays
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

  virtual FileInfo Info(FileId file) const = 0;

  // False when the file is not ready or no symbol covers the offset (symbols are bounded by their
  // size: gaps stay unknown, names are never invented).
  virtual bool Lookup(FileId file, uint64_t file_offset, Symbol* symbol) = 0;

  // Kernel text, modules and BPF programs from kallsyms, read at the first call and again when an
  // address falls outside what is known (at most every 10 s).
  virtual KernelSymbol LookupKernel(uint64_t address) = 0;
  // "" when kernel names can be had, else the reason (kptr_restrict, no permission).
  virtual std::string_view KernelReason() = 0;

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
