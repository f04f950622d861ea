// SPDX-License-Identifier: Apache-2.0
// Common files of dwz: what the debug files of several programs share, their names above all, known
// by a build id of its own that each of them has in its .gnu_debugaltlink. They are uploaded and
// fetched as other debug files are; here is who waits for which:
//   DIR/COMMON.ID       the debug information of ID lacks what is in COMMON (empty files)
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

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

  // Makes the directory, reads what is in it. `files` and `metrics` must outlive it.
  static absl::StatusOr<std::unique_ptr<CommonFiles>> Open(std::string directory, FileStore& files,
                                                           base::MetricsRegistry& metrics);
  // Empty: nobody is asked. What was set before is not called any more when this returns. Asks for
  // what was not there when the server ended.
  void SetWant(Want want) ABSL_LOCKS_EXCLUDED(mutex_);

  // symbolizer::IndexServiceOptions::open_common: an invalid descriptor when the file is not here;
  // then `wanted_by` waits for it.
  base::UniqueFd OpenFor(const symbolizer::BuildId& common, const symbolizer::BuildId& wanted_by)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Those that wait for it, and from now on do not.
  std::vector<symbolizer::BuildId> TakeWaiting(const symbolizer::BuildId& common)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // More that wait are forgotten and counted.
  static constexpr size_t kMaxWaiting = 65'536;

 private:
  CommonFiles(std::string directory, FileStore& files, base::MetricsRegistry& metrics);
  std::string PathOf(const symbolizer::BuildId& common, const symbolizer::BuildId& id) const;
  void Forget(const symbolizer::BuildId& common, const symbolizer::BuildId& id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string directory_;
  FileStore& files_;
  base::Counter& forgotten_;
  base::Mutex mutex_;
  Want want_ ABSL_GUARDED_BY(mutex_);
  std::map<symbolizer::BuildId, std::set<symbolizer::BuildId>> waiting_ ABSL_GUARDED_BY(mutex_);
  size_t count_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace firewatch::server
