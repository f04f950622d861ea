// SPDX-License-Identifier: Apache-2.0
// Which file's unwind table is in which state. A file's way:
//
//   Get -> build id known (from the kernel, or an answer before)? -> table alive, or in the cache
//     -> else open the file -> helper identifies it, if need be -> cache
//     -> else the helper builds it -> check, publish, map
//
// Files with one id share one table; it stays mapped as long as somebody holds it.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/metrics.h"
#include "symbolizer/file_identity.h"
#include "symbolizer/helper/helper_queue.h"
#include "symbolizer/index/index_cache.h"
#include "symbolizer/process/mapped_object.h"
#include "symbolizer/unwind/unwind_table.h"

namespace firewatch::symbolizer {

// The key of a file's content in the cache.
std::string KeyOf(const BuildId& id, bool is_pseudo);

// One home thread, the Symbolizer's. All references must outlive it.
class UnwindTables {
 public:
  using Table = std::shared_ptr<const MappedUnwindTable>;

  UnwindTables(std::string proc_root, IndexCache& cache, HelperQueue& queue,
               const base::Clock& clock, base::MetricsRegistry& metrics);

  // Symbolizer::UnwindTableOf. `file` is a dense number; `identity` must outlive this object.
  absl::StatusOr<Table> Get(uint32_t file, const FileIdentity& identity, const MappingHint& hint);

  // A job of this file is outstanding.
  bool IsAsked(uint32_t file) const { return file < files_.size() && files_[file].asked; }
  // The number may come again, for another file. Not for a file that IsAsked.
  void Forget(uint32_t file);
  // What is known of contents that no file has any more.
  void ForgetSlots();

  // An answer to a job whose `for_table` is set.
  void OnResult(HelperResult result);

 private:
  struct File {
    const FileIdentity* identity = nullptr;
    std::string key;     // "" until known
    absl::Status error;  // final when not OK
    bool asked = false;  // a job of this file is outstanding
    uint8_t attempts = 0;
    uint8_t deaths = 0;  // of the helper, on this file
    uint64_t retry_at_ns = 0;
    uint64_t other_at_ns = 0;  // from then on a process that was not tried last may be tried
    bool extra = false;        // the attempt under way is such a one
    std::string reason;        // of the last attempt
    MappingHint hint;
    int place = 0;
  };
  struct Slot {
    std::weak_ptr<const MappedUnwindTable> table;
    Table fresh;  // built, not yet taken by anybody
    bool building = false;
    absl::Status error;  // the content has no table: final for all its files
  };

  File& At(uint32_t id, const FileIdentity& identity);
  // The table of the file's key; NotFound when it has to be built.
  absl::StatusOr<Table> FromKey(const std::string& key);
  absl::Status OpenAndAsk(uint32_t id);
  absl::Status Ask(uint32_t id, base::UniqueFd elf);
  void OnIdentified(uint32_t id, HelperJob job);
  void OnBuilt(uint32_t id, const BuildId& found, const HelperAnswer& answer, HelperJob job);
  bool IsRightFile(uint32_t id, const BuildId& found, bool is_pseudo);
  // Ends the file's job: it may be tried again later, or never. Attempts through further processes
  // do not count.
  void Postpone(uint32_t id, std::string reason);
  void Refuse(uint32_t id, const absl::Status& error);
  void Count(const HelperAnswer& answer);

  const std::string proc_root_;
  IndexCache& cache_;
  HelperQueue& queue_;
  const base::Clock& clock_;
  std::deque<File> files_;
  base::StringMap<Slot> slots_;

  base::Counter& built_;
  base::Counter& cached_;
  base::Counter& refused_;
  base::Counter& unreadable_;
  base::Counter& fdes_;
  base::Counter& rows_;
  base::Counter& rows_no_rule_;
  std::vector<base::Counter*> reasons_;  // by CfiReason
};

}  // namespace firewatch::symbolizer
