// SPDX-License-Identifier: Apache-2.0
// Names for what agents could not name, on the server: files arrive (upload.h, debuginfod.h), are
// checked and kept (file_store.h), become names (name_source.h), and queries ask for them here.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/mutex.h"
#include "server/debuginfo/binary_registry.h"
#include "server/debuginfo/common_files.h"
#include "server/debuginfo/file_store.h"
#include "server/debuginfo/name_source.h"

namespace firewatch::server {

struct DebugInfoEntry {
  symbolizer::BuildId id;
  std::string path;  // as an agent saw the binary; "" unknown
  std::vector<StoredFile> files;
  NamesState state = NamesState::kUnknown;
  std::string reason;  // why it is not ready, or has no lines
  bool has_lines = false;
  symbolizer::BuildId missing_common;  // the common file of dwz that some names are in
};

// Any thread.
class DebugInfo {
 public:
  // Called for build ids whose names are missing or lack lines; must return at once.
  using Want = std::function<void(const symbolizer::BuildId&)>;

  // All must outlive it.
  DebugInfo(FileStore& files, CommonFiles& common, NameSource& source, BinaryRegistry& binaries,
            const base::Clock& clock, base::MetricsRegistry& metrics);
  // Before anything else is called; none: nobody is asked.
  void SetWant(Want want) { want_ = std::move(want); }

  FileStore& files() const { return files_; }
  BinaryRegistry& binaries() const { return binaries_; }

  // Takes over a file that was received: InvalidArgument when it is no ELF file for us,
  // FailedPrecondition when it has another build id, ResourceExhausted when it is too large;
  // else it is on disk, and its index is being built, and those of the files that waited for it
  // (common_files.h). Waits for the helper.
  // A common file of dwz is kept as such, whatever `kind`.
  absl::Status Accept(IncomingFile& file, const symbolizer::BuildId& id, FileKind kind,
                      FileSource source);

  // nullptr when there are no names (now). Never waits: starts what is missing in the background.
  std::shared_ptr<const BinaryNames> NamesOf(const symbolizer::BuildId& id, NamesState* state,
                                             std::string* reason);
  // As NamesOf, but only looks.
  NamesState StateOf(const symbolizer::BuildId& id, std::string* reason, bool* has_lines) const;

  // Of every id that has a file, sorted by id.
  std::vector<DebugInfoEntry> List() const;
  DebugInfoEntry EntryOf(const symbolizer::BuildId& id) const;
  // NotFound: no file of that id.
  absl::Status Delete(const symbolizer::BuildId& id);

 private:
  absl::Status OfferStored(const symbolizer::BuildId& id, bool replace);
  bool MayRetry(const symbolizer::BuildId& id) ABSL_LOCKS_EXCLUDED(mutex_);

  FileStore& files_;
  CommonFiles& common_;
  NameSource& source_;
  BinaryRegistry& binaries_;
  const base::Clock& clock_;
  base::Counter &accepted_, &refused_;
  Want want_;
  base::Mutex mutex_;
  // When an offer was tried last, of ids whose index is not there. Cleared when it grows.
  absl::flat_hash_map<symbolizer::BuildId, int64_t> offered_ms_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace firewatch::server
