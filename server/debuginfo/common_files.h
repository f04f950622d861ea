// SPDX-License-Identifier: Apache-2.0
// Common files of dwz: what the debug files of several programs share, their names above all, known
// by a build id of its own that each of them has in its .gnu_debugaltlink. They are uploaded and
// fetched as other debug files are; here is who needs which (empty files):
//   DIR/COMMON.ID        the names of ID were made without COMMON, which was not there
//   DIR/COMMON.ID.used   with it
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "base/metrics.h"
#include "base/mutex.h"
#include "base/unique_fd.h"
#include "server/debuginfo/file_store.h"
#include "symbolizer/file_identity.h"

namespace firewatch::server {

// Any thread.
class CommonFiles {
 public:
  // Asks for a file that is not here; must return at once.
  using Want = std::function<void(const symbolizer::BuildId&)>;

  // Makes the directory, reads what is in it; of ids that have no file any more nothing is kept.
  // `files` and `metrics` must outlive it.
  static absl::StatusOr<std::unique_ptr<CommonFiles>> Open(std::string directory, FileStore& files,
                                                           base::MetricsRegistry& metrics);
  // Empty: nobody is asked. What was set before is not called any more when this returns.
  void SetWant(Want want) ABSL_LOCKS_EXCLUDED(mutex_);

  // symbolizer::IndexServiceOptions::open_common: an invalid descriptor when the file is not here;
  // then `needed_by` waits for it, also over a restart, until it is opened.
  base::UniqueFd OpenFor(const symbolizer::BuildId& common, const symbolizer::BuildId& needed_by)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Those that wait for it, and go on waiting until it is opened for them.
  std::vector<symbolizer::BuildId> WaitingFor(const symbolizer::BuildId& common)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // The names of `id` are asked for: keeps its common file from being evicted, or asks for it
  // again. True when it waits for one that is here, and is to be built once more.
  bool NoteUse(const symbolizer::BuildId& id) ABSL_LOCKS_EXCLUDED(mutex_);
  // What it waits for; empty: nothing.
  symbolizer::BuildId MissingOf(const symbolizer::BuildId& id) ABSL_LOCKS_EXCLUDED(mutex_);

  // More are not remembered, and counted.
  static constexpr size_t kMaxRecords = 65'536;

 private:
  struct Need {
    symbolizer::BuildId common;
    bool waits = false;
  };
  CommonFiles(std::string directory, FileStore& files, base::MetricsRegistry& metrics);
  void Load() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string PathOf(const symbolizer::BuildId& id, const Need& need) const;
  void Remember(const symbolizer::BuildId& id, const Need& need)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Forget(const symbolizer::BuildId& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Those whose files are gone.
  void ForgetGone() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string directory_;
  FileStore& files_;
  base::Counter& forgotten_;
  base::Mutex mutex_;
  Want want_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<symbolizer::BuildId, Need> needs_ ABSL_GUARDED_BY(mutex_);
  std::map<symbolizer::BuildId, std::set<symbolizer::BuildId>> waiting_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace firewatch::server
