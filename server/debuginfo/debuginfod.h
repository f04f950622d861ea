// SPDX-License-Identifier: Apache-2.0
// Asks debuginfod servers (DEBUGINFOD_URLS, as elfutils' client has it) for files of build ids that
// nobody uploaded. Off when the variable is empty. Everything happens on one thread of its own:
// asking for a build id costs a query one short lock, and no query ever waits for an answer.
//
//   GET URL/buildid/HEX/debuginfo, then, where no server has that, URL/buildid/HEX/executable
//
// A "no" is remembered on disk, one empty file per build id below DIR/missing, for hours when every
// server said 404 and for minutes when one did not answer. What comes is a stranger's, as an upload
// is: bounded in time and bytes, checked by the helper, refused when its build id is another.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/bounded_queue.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/mutex.h"
#include "server/debuginfo/debuginfo.h"

namespace firewatch::server {

struct DebuginfodOptions {
  std::vector<std::string> urls;  // none: nothing is asked
  std::string directory;          // of the memory of "no"
  int connect_timeout_ms = 3'000;
  int timeout_ms = 90'000;        // per file and server, as elfutils' DEBUGINFOD_TIMEOUT
  int stall_timeout_ms = 10'000;  // nothing arrives
  int64_t missing_ms = 6 * 3'600'000;
  int64_t failed_ms = 600'000;
  size_t max_waiting = 1'024;
};

// URLs of the variable's text: apart by blanks; only http and https ones are taken.
std::vector<std::string> ParseDebuginfodUrls(std::string_view text);

// Any thread; the destructor cancels what is under way and waits for the thread.
class Debuginfod {
 public:
  // `debuginfo`, `clock` and `metrics` must outlive it. Starts the thread if there are URLs.
  Debuginfod(DebuginfodOptions options, DebugInfo& debuginfo, const base::Clock& clock,
             base::MetricsRegistry& metrics);
  ~Debuginfod();
  Debuginfod(const Debuginfod&) = delete;
  Debuginfod& operator=(const Debuginfod&) = delete;

  // For DebugInfo::SetWant. Asks once per build id until the memory of its answer is too old.
  void Want(const symbolizer::BuildId& id) ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits until nothing is asked or waits to be; at most `timeout_ms`. For tests.
  bool WaitIdle(int timeout_ms) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  enum class Outcome { kFetched, kMissing, kFailed };
  void Run();
  Outcome Fetch(const symbolizer::BuildId& id);
  Outcome FetchKind(const symbolizer::BuildId& id, FileKind kind);
  Outcome FetchFrom(const std::string& url, const symbolizer::BuildId& id, FileKind kind);
  // Until when the answer on disk holds, unix ms; 0: there is none.
  int64_t RememberedUntil(const symbolizer::BuildId& id) const;
  void Remember(const symbolizer::BuildId& id, Outcome outcome);

  const DebuginfodOptions options_;
  DebugInfo& debuginfo_;
  const base::Clock& clock_;
  base::Counter &fetched_, &missing_, &failed_, &refused_, &full_, &remembered_;
  base::Counter& bytes_;
  base::BoundedQueue<symbolizer::BuildId> queue_;
  base::Mutex mutex_;
  base::CondVar idle_;
  // Not to be asked for before this, unix ms.
  absl::flat_hash_map<symbolizer::BuildId, int64_t> quiet_until_ ABSL_GUARDED_BY(mutex_);
  size_t pending_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<bool> stop_{false};
  std::thread thread_;  // last: everything above is there when it starts
};

}  // namespace firewatch::server
