// SPDX-License-Identifier: Apache-2.0
// Two sides. Lookups: a table of entries in 64 parts, each with its lock, held for one hash lookup.
// Builds: one thread with the helper's queue; it takes one offer after the other. Both meet in the
// directory of index files, whose lock is only taken to map a file or to publish one.
#include "symbolizer/index_service.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <optional>
#include <thread>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "base/bounded_queue.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "symbolizer/helper/helper_queue.h"
#include "symbolizer/index/index_cache.h"

namespace firewatch::symbolizer {
namespace {

constexpr size_t kParts = 64;
// Of one part: 131,072 build ids together, after which the least recently used are forgotten.
constexpr size_t kMaxEntriesPerPart = 2048;
constexpr size_t kStates = 8;
constexpr int kPollMs = 200;
constexpr size_t kOffsetsAtOnce = 64;

constexpr std::string_view kStateNames[kStates] = {
    "unknown", "building", "ready", "no_symbols", "mismatch", "refused", "over_budget", "failed"};

class Served final : public ServedIndex {
 public:
  explicit Served(MappedIndex mapped) : mapped_(std::move(mapped)) {}
  const SymbolIndex& index() const override { return mapped_.index; }
  void FindOffsets(std::span<const uint64_t> file_offsets, std::span<const ElfSegment> known,
                   absl::FunctionRef<void(size_t number, std::span<const IndexFrame> frames)> take)
      const override {
    // Those that have an address, some at a time.
    std::array<uint64_t, kOffsetsAtOnce> vaddrs;
    std::array<size_t, kOffsetsAtOnce> numbers;
    size_t taken = 0;
    for (size_t next = 0; next < file_offsets.size();) {
      size_t count = 0;
      for (; next < file_offsets.size() && count < vaddrs.size(); ++next) {
        const auto vaddr = VaddrOf(file_offsets[next], known);
        if (!vaddr) continue;
        vaddrs[count] = *vaddr;
        numbers[count++] = next;
      }
      mapped_.index.FindAddresses(std::span(vaddrs).first(count),
                                  [&](size_t i, std::span<const IndexFrame> frames) {
                                    while (taken < numbers[i]) take(taken++, {});
                                    take(taken++, frames);
                                  });
    }
    while (taken < file_offsets.size()) take(taken++, {});
  }

 private:
  std::optional<uint64_t> VaddrOf(uint64_t file_offset, std::span<const ElfSegment> known) const {
    return mapped_.index.has_segments() ? mapped_.index.VaddrOf(file_offset)
                                        : VaddrBySegments(known, file_offset);
  }

  const MappedIndex mapped_;
};

absl::Status AlreadyExists(const BuildId& id, std::string_view why) {
  return base::MakeStatus(absl::StatusCode::kAlreadyExists, fmt::format("{}: {}", id.ToHex(), why));
}

struct Entry {
  IndexState state = IndexState::kUnknown;  // of the last build that ended
  bool building = false;
  std::optional<OfferedFiles> next;  // offered while it was being built: to be built after that
  std::string reason;
  std::shared_ptr<const ServedIndex> index;
  uint64_t last_use = 0;
};

struct Part {
  base::Mutex mutex;
  absl::flat_hash_map<BuildId, Entry> entries ABSL_GUARDED_BY(mutex);
};

struct Work {
  BuildId id;
  OfferedFiles files;
};

struct Outcome {
  IndexState state = IndexState::kFailed;
  std::string reason;
  std::shared_ptr<const ServedIndex> index;
};

class IndexServiceImpl final : public IndexService {
 public:
  IndexServiceImpl(IndexServiceOptions options, std::unique_ptr<IndexCache> cache,
                   base::MetricsRegistry& metrics);
  ~IndexServiceImpl() override;

  absl::Status Offer(const BuildId& id, OfferedFiles files, bool replace) override;
  std::shared_ptr<const ServedIndex> Find(const BuildId& id, IndexState* state,
                                          std::string* reason) override;
  bool WaitIdle(int timeout_ms) override;

 private:
  Part& PartOf(const BuildId& id) { return parts_[absl::Hash<BuildId>()(id) % kParts]; }
  // The index in the directory, mapped; nullptr when there is none.
  std::shared_ptr<const ServedIndex> Map(const BuildId& id) ABSL_LOCKS_EXCLUDED(cache_mutex_);
  // Puts a mapped index where it belongs; returns the one that is there then.
  std::shared_ptr<const ServedIndex> Keep(const BuildId& id,
                                          std::shared_ptr<const ServedIndex> index);
  void Trim(Part& part) ABSL_EXCLUSIVE_LOCKS_REQUIRED(part.mutex);
  void UnmapOldest();

  void Run();
  Outcome Build(Work work);
  absl::Status AddCommonFile(Work* work);
  absl::StatusOr<HelperResult> Ask(HelperOperation operation, OfferedFiles files);
  Outcome Publish(const BuildId& id, const HelperResult& result);
  // What came while it was built; then the id is still being built.
  std::optional<Work> Finish(const BuildId& id, Outcome outcome);
  void AddPending(int change);

  const IndexServiceOptions options_;
  const base::SystemClock clock_;
  HelperQueue queue_;  // the thread's
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> uses_{0};
  std::atomic<size_t> mapped_{0};
  std::array<Part, kParts> parts_;

  base::Mutex cache_mutex_;
  const std::unique_ptr<IndexCache> cache_ ABSL_PT_GUARDED_BY(cache_mutex_);

  base::Mutex pending_mutex_;
  base::CondVar idle_;
  size_t pending_ ABSL_GUARDED_BY(pending_mutex_) = 0;
  base::BoundedQueue<Work> work_;

  std::array<base::Counter*, kStates> builds_;
  std::array<base::Counter*, kStates> finds_;
  base::Counter& refused_offers_;
  base::Gauge& cache_bytes_;
  base::Gauge& mapped_gauge_;
  std::thread thread_;  // last: it uses all of the above
};

IndexServiceImpl::IndexServiceImpl(IndexServiceOptions options, std::unique_ptr<IndexCache> cache,
                                   base::MetricsRegistry& metrics)
    : options_(std::move(options)),
      queue_({.helper_path = options_.helper_path,
              .max_cpu_seconds = options_.helper_max_seconds,
              .max_bytes = options_.helper_max_bytes},
             clock_, metrics),
      cache_(std::move(cache)),
      work_(options_.max_waiting),
      refused_offers_(metrics.AddCounter("firewatch_index_offers_refused_total",
                                         "Files that were not taken because too many wait.")),
      cache_bytes_(metrics.AddGauge("firewatch_index_cache_bytes",
                                    "Bytes of the directory of symbol indexes.")),
      mapped_gauge_(metrics.AddGauge("firewatch_index_mapped", "Symbol indexes that are mapped.")) {
  for (size_t i = 0; i < kStates; ++i) {
    const base::MetricLabels labels = {{"result", std::string(kStateNames[i])}};
    builds_[i] = &metrics.AddCounter("firewatch_index_builds_total",
                                     "Symbol indexes that were to be built, by result.", labels);
    finds_[i] =
        &metrics.AddCounter("firewatch_index_finds_total",
                            "Build ids that were asked for, by what is known of them.", labels);
  }
  thread_ = std::thread([this] { Run(); });
}

IndexServiceImpl::~IndexServiceImpl() {
  stop_ = true;
  work_.Close();
  thread_.join();
}

absl::Status IndexServiceImpl::Offer(const BuildId& id, OfferedFiles files, bool replace) {
  if (id.empty()) return base::InvalidArgument("no build id");
  if (!files.elf.valid() && !files.debug.valid()) return base::InvalidArgument("no file");
  if (!replace) {
    const auto known = Find(id, nullptr, nullptr);
    if (known != nullptr && known->index().has_lines()) {
      return AlreadyExists(id, "has an index with lines");
    }
  }
  Part& part = PartOf(id);
  base::MutexLock lock(part.mutex);
  Entry& entry = part.entries[id];
  if (entry.building && !replace) return AlreadyExists(id, "is being built");
  if (entry.building) {
    entry.next = std::move(files);
    return absl::OkStatus();
  }
  entry.building = true;
  entry.last_use = ++uses_;
  Trim(part);
  AddPending(1);
  // With the lock: who comes meanwhile finds it building, or not.
  if (!work_.TryPush({.id = id, .files = std::move(files)})) {
    entry.building = false;
    AddPending(-1);
    refused_offers_.Add();
    return base::ResourceExhausted("{} files wait for their index", options_.max_waiting);
  }
  return absl::OkStatus();
}

void IndexServiceImpl::AddPending(int change) {
  base::MutexLock lock(pending_mutex_);
  pending_ += static_cast<size_t>(change);
  idle_.NotifyAll();
}

std::shared_ptr<const ServedIndex> IndexServiceImpl::Find(const BuildId& id, IndexState* state,
                                                          std::string* reason) {
  IndexState found = IndexState::kUnknown;
  std::string why;
  std::shared_ptr<const ServedIndex> index;
  Part& part = PartOf(id);
  {
    base::MutexLock lock(part.mutex);
    if (const auto at = part.entries.find(id); at != part.entries.end()) {
      Entry& entry = at->second;
      entry.last_use = ++uses_;
      index = entry.index;
      found = entry.building && index == nullptr ? IndexState::kBuilding : entry.state;
      why = entry.reason;
    }
  }
  // Not met since the start, or unmapped for others: it may be in the directory.
  const bool may_be_there = found == IndexState::kUnknown || found == IndexState::kReady ||
                            found == IndexState::kBuilding || found == IndexState::kFailed;
  if (index == nullptr && may_be_there && !id.empty()) {
    index = Map(id);
    if (index != nullptr) index = Keep(id, std::move(index));
    if (index == nullptr && found == IndexState::kReady) found = IndexState::kUnknown;
  }
  if (index != nullptr) found = IndexState::kReady;
  finds_[static_cast<size_t>(found)]->Add();
  if (state != nullptr) *state = found;
  if (reason != nullptr) *reason = std::move(why);
  return index;
}

std::shared_ptr<const ServedIndex> IndexServiceImpl::Map(const BuildId& id) {
  base::MutexLock lock(cache_mutex_);
  auto mapped = cache_->Find(id.ToHex());
  if (!mapped.ok() || mapped->index.id() != id) return nullptr;
  return std::make_shared<Served>(*std::move(mapped));
}

std::shared_ptr<const ServedIndex> IndexServiceImpl::Keep(
    const BuildId& id, std::shared_ptr<const ServedIndex> index) {
  {
    Part& part = PartOf(id);
    base::MutexLock lock(part.mutex);
    Entry& entry = part.entries[id];
    if (entry.index != nullptr) return entry.index;  // somebody else was quicker
    entry.index = index;
    entry.state = IndexState::kReady;
    entry.last_use = ++uses_;
    ++mapped_;
    Trim(part);
  }
  if (mapped_ > options_.max_mapped) UnmapOldest();
  mapped_gauge_.Set(static_cast<double>(mapped_));
  return index;
}

void IndexServiceImpl::Trim(Part& part) {
  if (part.entries.size() <= kMaxEntriesPerPart) return;
  auto oldest = part.entries.end();
  for (auto at = part.entries.begin(); at != part.entries.end(); ++at) {
    if (at->second.building) continue;
    if (oldest == part.entries.end() || at->second.last_use < oldest->second.last_use) oldest = at;
  }
  if (oldest == part.entries.end()) return;
  if (oldest->second.index != nullptr) --mapped_;
  part.entries.erase(oldest);
}

// An eighth at a time, so that it is not done for every newcomer. Handles keep theirs.
void IndexServiceImpl::UnmapOldest() {
  std::vector<uint64_t> uses;
  for (Part& part : parts_) {
    base::MutexLock lock(part.mutex);
    for (const auto& [id, entry] : part.entries) {
      if (entry.index != nullptr) uses.push_back(entry.last_use);
    }
  }
  if (uses.size() <= options_.max_mapped) return;
  const size_t keep = options_.max_mapped - options_.max_mapped / 8;
  const auto limit = uses.begin() + static_cast<std::ptrdiff_t>(uses.size() - keep);
  std::nth_element(uses.begin(), limit, uses.end());
  const uint64_t oldest_kept = limit == uses.end() ? UINT64_MAX : *limit;
  for (Part& part : parts_) {
    base::MutexLock lock(part.mutex);
    for (auto& [id, entry] : part.entries) {
      if (entry.index == nullptr || entry.last_use >= oldest_kept) continue;
      entry.index = nullptr;
      --mapped_;
    }
  }
}

bool IndexServiceImpl::WaitIdle(int timeout_ms) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  base::MutexLock lock(pending_mutex_);
  while (pending_ > 0) {
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left <= std::chrono::nanoseconds::zero()) return false;
    idle_.WaitFor(pending_mutex_, left);
  }
  return true;
}

void IndexServiceImpl::Run() {
  while (!stop_) {
    auto work = work_.PopFor(std::chrono::seconds(1));
    if (!work) {
      queue_.Poll(0);  // ends a helper that has been idle for long
      continue;
    }
    if (stop_) return;
    // Files of the same id that came meanwhile are next.
    while (work && !stop_) {
      const BuildId id = work->id;
      work = Finish(id, Build(*std::move(work)));
    }
  }
}

absl::StatusOr<HelperResult> IndexServiceImpl::Ask(HelperOperation operation, OfferedFiles files) {
  HelperJob job;
  job.operation = operation;
  {
    base::MutexLock lock(cache_mutex_);
    ASSIGN_OR_RETURN(job.output, cache_->NewScratch());
    ASSIGN_OR_RETURN(job.scratch, cache_->NewScratch());
  }
  job.elf = std::move(files.elf);
  job.debug = std::move(files.debug);
  job.alt = std::move(files.alt);
  job.dwp = std::move(files.dwp);
  queue_.Submit(std::move(job));
  while (!stop_) {
    auto results = queue_.Poll(kPollMs);
    if (!results.empty()) return std::move(results.front());
  }
  return base::Unavailable("the server stops");
}

// A debug file says in a note whose common file it needs: the helper reads it. An error is none of
// the file's.
absl::Status IndexServiceImpl::AddCommonFile(Work* work) {
  if (!options_.open_common || work->files.alt.valid()) return absl::OkStatus();
  for (const base::UniqueFd* file : {&work->files.debug, &work->files.elf}) {
    if (!file->valid()) continue;
    base::UniqueFd copy(::fcntl(file->get(), F_DUPFD_CLOEXEC, 0));
    if (!copy.valid()) return base::ErrnoStatus(errno, "copy a descriptor");
    ASSIGN_OR_RETURN(const HelperResult result,
                     Ask(HelperOperation::kIdentify, {.elf = std::move(copy)}));
    if (!result.failure.empty() && !result.helper_died) {
      return base::Unavailable("{}", result.failure);
    }
    const HelperAnswer& answer = result.answer;
    // Of both files the first with DWARF is read.
    if (result.helper_died || answer.status != HelperStatus::kOk ||
        (answer.flags & kHelperDwarf) == 0) {
      continue;
    }
    BuildId common;
    common.size = std::min<uint8_t>(answer.altlink_id_size, sizeof(answer.altlink_id));
    std::copy_n(answer.altlink_id, common.size, common.bytes.begin());
    if (!common.empty()) work->files.alt = options_.open_common(common, work->id);
    break;
  }
  return absl::OkStatus();
}

Outcome IndexServiceImpl::Build(Work work) {
  if (const absl::Status status = AddCommonFile(&work); !status.ok()) {
    return {.reason = std::string(base::Message(status))};
  }
  const bool with_common = work.files.alt.valid();
  auto result = Ask(HelperOperation::kBuildLines, std::move(work.files));
  // A common file that is too much for the helper takes nothing else away.
  if (with_common && result.ok() &&
      (result->helper_died ||
       result->answer.lines_state == static_cast<uint8_t>(LinesState::kOverBudget))) {
    HelperJob& job = result->job;
    result = Ask(HelperOperation::kBuildLines, {.elf = std::move(job.elf),
                                                .debug = std::move(job.debug),
                                                .alt = {},
                                                .dwp = std::move(job.dwp)});
  }
  if (!result.ok()) return {.reason = std::string(base::Message(result.status()))};
  if (!result->helper_died) return Publish(work.id, *result);
  // Names without lines are better than nothing, and take neither time nor memory.
  const std::string failure = result->failure;
  const bool over_budget = result->over_budget;
  HelperJob& job = result->job;
  auto second = Ask(HelperOperation::kBuild, {.elf = std::move(job.elf),
                                              .debug = std::move(job.debug),
                                              .alt = std::move(job.alt),
                                              .dwp = std::move(job.dwp)});
  Outcome outcome;
  if (second.ok() && !second->helper_died) outcome = Publish(work.id, *second);
  if (outcome.index == nullptr) {
    outcome.state = over_budget ? IndexState::kOverBudget : IndexState::kRefused;
  }
  outcome.reason = failure;
  return outcome;
}

Outcome IndexServiceImpl::Publish(const BuildId& id, const HelperResult& result) {
  if (!result.failure.empty()) return {.reason = result.failure};
  const HelperAnswer& answer = result.answer;
  Outcome outcome = {.reason = answer.reason};
  if (answer.status != HelperStatus::kOk) {
    if (answer.status == HelperStatus::kRefused) outcome.state = IndexState::kRefused;
    if (answer.status == HelperStatus::kOverBudget) outcome.state = IndexState::kOverBudget;
    return outcome;
  }
  BuildId found;
  found.size = answer.id_size;
  std::copy(std::begin(answer.id), std::end(answer.id), found.bytes.begin());
  if (answer.has_pseudo_id != 0 || found != id) {
    outcome.state = IndexState::kMismatch;
    outcome.reason =
        fmt::format("the file has {}, {} was expected",
                    answer.has_pseudo_id != 0 ? "no build id" : found.ToHex(), id.ToHex());
    return outcome;
  }
  if (answer.symbol_count == 0 && answer.line_rows == 0) {
    outcome.state = IndexState::kNoSymbols;
    return outcome;
  }
  if (answer.lines_state != static_cast<uint8_t>(LinesState::kPresent)) {
    // What has lines is better.
    if (auto known = Map(id); known != nullptr && known->index().has_lines()) {
      outcome.state = IndexState::kReady;
      outcome.index = std::move(known);
      return outcome;
    }
  }
  base::MutexLock lock(cache_mutex_);
  auto mapped = cache_->Adopt(id.ToHex(), id, result.job.output.get());
  cache_bytes_.Set(static_cast<double>(cache_->total_bytes()));
  if (!mapped.ok()) {
    outcome.reason = base::Message(mapped.status());
    return outcome;
  }
  outcome.state = IndexState::kReady;
  outcome.index = std::make_shared<Served>(*std::move(mapped));
  return outcome;
}

std::optional<Work> IndexServiceImpl::Finish(const BuildId& id, Outcome outcome) {
  builds_[static_cast<size_t>(outcome.state)]->Add();
  std::optional<OfferedFiles> next;
  {
    Part& part = PartOf(id);
    base::MutexLock lock(part.mutex);
    Entry& entry = part.entries[id];
    next.swap(entry.next);
    entry.building = next.has_value();
    entry.reason = std::move(outcome.reason);
    if (outcome.index != nullptr) {
      if (entry.index == nullptr) ++mapped_;
      entry.index = std::move(outcome.index);
    }
    // A file that is no good does not take away what there is.
    entry.state = entry.index != nullptr ? IndexState::kReady : outcome.state;
  }
  if (mapped_ > options_.max_mapped) UnmapOldest();
  mapped_gauge_.Set(static_cast<double>(mapped_));
  if (next) return Work{.id = id, .files = *std::move(next)};  // still pending
  AddPending(-1);
  return std::nullopt;
}

}  // namespace

std::string_view IndexStateText(IndexState state) {
  return kStateNames[std::min(static_cast<size_t>(state), kStates - 1)];
}

std::optional<uint64_t> VaddrBySegments(std::span<const ElfSegment> segments,
                                        uint64_t file_offset) {
  const ElfSegment* found = nullptr;
  for (const ElfSegment& segment : segments) {
    if (file_offset < segment.file_offset || file_offset - segment.file_offset >= segment.file_size)
      continue;
    if (found == nullptr || (segment.executable && !found->executable)) found = &segment;
  }
  if (found == nullptr) return std::nullopt;
  const uint64_t distance = file_offset - found->file_offset;
  if (found->vaddr > UINT64_MAX - distance) return std::nullopt;
  return found->vaddr + distance;
}

absl::StatusOr<std::unique_ptr<IndexService>> IndexService::Create(IndexServiceOptions options,
                                                                   base::MetricsRegistry& metrics) {
  ASSIGN_OR_RETURN(auto cache, IndexCache::Open(options.cache_directory, options.cache_max_bytes));
  return std::make_unique<IndexServiceImpl>(std::move(options), std::move(cache), metrics);
}

}  // namespace firewatch::symbolizer
