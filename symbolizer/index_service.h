// SPDX-License-Identifier: Apache-2.0
// For the server: symbol indexes by build id, built from files that somebody uploaded or that came
// from debuginfod. Those bytes are a stranger's: they are read by the sandboxed helper only, one
// file at a time, on a thread of this object, with a deadline. Indexes lie in a directory of capped
// size and are mapped when asked for.
//
//   Offer(id, files) -> queue -> helper builds -> check, publish       (own thread)
//   Find(id) -> handle -> handle.FindOffsets(...) ...                  (any thread)
//
// A handle is a snapshot: it stays valid and unchanged while a better index of the id is published.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/metrics.h"
#include "base/unique_fd.h"
#include "symbolizer/elf/elf_reader.h"
#include "symbolizer/file_identity.h"
#include "symbolizer/index/symbol_index.h"
#include "symbolizer/index_build.h"

namespace firewatch::symbolizer {

struct IndexServiceOptions {
  std::string cache_directory;  // made if missing; "" = a temporary one, removed at the end
  uint64_t cache_max_bytes = uint64_t{1} << 30;
  std::string helper_path;            // "" = /proc/self/exe, which must serve --symbol-helper
  uint32_t helper_max_seconds = 120;  // CPU per file; ten times as much by the clock
  uint64_t helper_max_bytes = uint64_t{2} << 30;  // private memory of the helper
  size_t max_waiting = 256;                       // offers; more are refused
  size_t max_mapped = 1024;  // indexes that are mapped, least recently used go first
  // Opens the common file of dwz that the debug information of `needed_by` refers to, by build id;
  // an invalid descriptor when it is not there: whoever has it later offers `needed_by` again. On
  // the thread of the builds. May be empty: names that are in such files are missing.
  std::function<base::UniqueFd(const BuildId& common, const BuildId& needed_by)> open_common;
};

// What is known of a build id.
enum class IndexState : uint8_t {
  kUnknown,     // never offered, or evicted: offer the files (again)
  kBuilding,    // offered, waits or is being built
  kReady,       // there is an index; it may have no lines (SymbolIndex::lines_state)
  kNoSymbols,   // built: has neither symbols nor lines (stripped)
  kMismatch,    // the files have another build id than offered
  kRefused,     // not an ELF file for us, or malformed
  kOverBudget,  // took more time or memory than allowed
  kFailed,      // no helper to be had, disk full: offer again
};
std::string_view IndexStateText(IndexState state);

// The files of one build id, opened O_RDONLY. At least one of `elf` and `debug`.
struct OfferedFiles {
  base::UniqueFd elf;
  base::UniqueFd debug;
  base::UniqueFd alt;
  base::UniqueFd dwp;
};

// An index that is mapped. Immutable: any thread, no locks.
class ServedIndex {
 public:
  virtual ~ServedIndex() = default;
  virtual const SymbolIndex& index() const = 0;
  // Frames of file offsets, as SymbolIndex::FindAddresses: one call of `take` for each, in order;
  // none: no name. By the index's own segments; an index of a debug file alone has none, then by
  // `known`: the executable segments of the file that runs, as the agent told them.
  virtual void FindOffsets(
      std::span<const uint64_t> file_offsets, std::span<const ElfSegment> known,
      absl::FunctionRef<void(size_t number, std::span<const IndexFrame> frames)> take) const = 0;
};

// Thread-safe. `metrics` must outlive it. The destructor ends the helper and the thread.
class IndexService {
 public:
  // Starts the thread; the helper is started by the first offer.
  static absl::StatusOr<std::unique_ptr<IndexService>> Create(IndexServiceOptions options,
                                                              base::MetricsRegistry& metrics);
  virtual ~IndexService() = default;

  // Builds, in the background, the index of `id` from the files, replacing the one that is there
  // if it has no lines or `replace`. Returns at once. AlreadyExists: there is one with lines, or
  // it is being built; with `replace` it is built once more then. ResourceExhausted: too many wait.
  virtual absl::Status Offer(const BuildId& id, OfferedFiles files, bool replace = false) = 0;

  // nullptr unless kReady; `state` (may be nullptr) says which, `reason` (may be nullptr) why.
  // One lookup in a table of one of many locks, or, the first time, mapping and checking the file
  // (1 ms per 2 MB): ask once per build id and query, then use the handle.
  virtual std::shared_ptr<const ServedIndex> Find(const BuildId& id, IndexState* state,
                                                  std::string* reason) = 0;

  // Waits until nothing is queued or being built, at most `timeout_ms`. False: there still is.
  virtual bool WaitIdle(int timeout_ms) = 0;
};

// vaddr of a file offset by PT_LOAD segments (executable ones first); nothing outside of them.
std::optional<uint64_t> VaddrBySegments(std::span<const ElfSegment> segments, uint64_t file_offset);

}  // namespace firewatch::symbolizer
