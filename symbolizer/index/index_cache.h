// SPDX-License-Identifier: Apache-2.0
// The directory of symbol indexes and unwind tables, one of each per content:
//   <build id>.fwsym, .fwunw      ELF files with a build id
//   pseudo-<hash>.fwsym, .fwunw   ELF files without one: hash of size, first and last 4 KiB
//   kernel-<boot id>.fwsym
//   .tmp-<random>         being written; removed when an hour old
// Files appear by rename and never change afterwards, so a mapped one is stable. Several processes
// may share the directory.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/mapped_file.h"
#include "base/unique_fd.h"
#include "symbolizer/index/symbol_index.h"
#include "symbolizer/unwind/unwind_table.h"

namespace firewatch::symbolizer {

// An index and the mapping it lives in.
struct MappedIndex {
  base::MappedFile file;
  SymbolIndex index;
};

// One home thread.
class IndexCache {
 public:
  // Makes the directory (mode 0700). "" means a private one below $TMPDIR or /tmp, which the
  // destructor removes with all its files. Evicts down to `max_bytes`.
  static absl::StatusOr<std::unique_ptr<IndexCache>> Open(const std::string& directory,
                                                          uint64_t max_bytes);
  ~IndexCache();
  IndexCache(const IndexCache&) = delete;
  IndexCache& operator=(const IndexCache&) = delete;

  // NotFound when there is none. A corrupt file is unlinked, counted, and not found.
  absl::StatusOr<MappedIndex> Find(std::string_view key);
  absl::StatusOr<MappedUnwindTable> FindTable(std::string_view key);

  // An empty unnamed file in the directory, for the helper to write.
  absl::StatusOr<base::UniqueFd> NewScratch();

  // Takes over what was written to `scratch_fd`: copies it (the helper still holds a descriptor of
  // the scratch file and could truncate it under our mapping), checks the copy, publishes it.
  // DataLoss when the copy is not sound or not of `id`. Evicts when the directory is full.
  absl::StatusOr<MappedIndex> Adopt(std::string_view key, const BuildId& id, int scratch_fd);
  absl::StatusOr<MappedUnwindTable> AdoptTable(std::string_view key, const BuildId& id,
                                               int scratch_fd);

  uint64_t total_bytes() const { return total_bytes_; }
  uint64_t corrupt_files() const { return corrupt_files_; }
  uint64_t evicted_files() const { return evicted_files_; }

 private:
  IndexCache(std::string directory, uint64_t max_bytes, bool is_private)
      : directory_(std::move(directory)), max_bytes_(max_bytes), private_(is_private) {}
  template <typename T>
  absl::StatusOr<T> FindFile(std::string_view key);
  template <typename T>
  absl::StatusOr<T> AdoptFile(std::string_view key, const BuildId& id, int scratch_fd);
  // Measures the directory; removes stale temporary files and, least recently used first,
  // files of ours until `max_bytes_` holds. `keep` is the file that was just added.
  void Evict(const std::string& keep);

  const std::string directory_;
  const uint64_t max_bytes_;
  const bool private_;
  uint64_t total_bytes_ = 0;
  uint64_t corrupt_files_ = 0;
  uint64_t evicted_files_ = 0;
};

}  // namespace firewatch::symbolizer
