// SPDX-License-Identifier: Apache-2.0
// The Symbolizer: which file is in which state. A file's way:
//
//   Intern -> kNew -> Request: open it -> kPending -> helper identifies it (build id)
//     -> index in the cache?  map it -> kReady
//     -> else the helper builds it -> check, publish, map -> kReady | kNoSymbols
//
// A file whose build id the kernel has told skips the first question, and when the index is in the
// cache it is not even opened. Files with one id share one index. Unwind tables take a way of their
// own beside it (unwind_tables.h), through the same helper and the same cache. Everything slow or
// dangerous is elsewhere: helper/ parses, index/ checks and maps, process/ opens.
#include "symbolizer/symbolizer.h"

#include <algorithm>
#include <cstddef>
#include <deque>
#include <set>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/status.h"
#include "symbolizer/helper/helper_queue.h"
#include "symbolizer/index/index_cache.h"
#include "symbolizer/index/name_cache.h"
#include "symbolizer/process/kernel_symbols.h"
#include "symbolizer/process/mapped_object.h"
#include "symbolizer/unwind_tables.h"

namespace firewatch::symbolizer {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;
constexpr uint64_t kNever = UINT64_MAX;
constexpr uint32_t kNoSlot = UINT32_MAX;
// Mappings count against vm.max_map_count (65,530); an index in use is mapped again in 1 ms.
constexpr size_t kMaxMappedIndexes = 2048;
constexpr int kMaxAttempts = 8;
// Names that were shown are kept unpacked: 20,000 of them take some 4 MB.
constexpr size_t kMaxNamesBytes = size_t{8} << 20;

constexpr const char* kStateNames[] = {"new",        "pending",    "ready",
                                       "no_symbols", "unreadable", "refused"};

struct FileRecord {
  FileIdentity identity;
  FileState state = FileState::kNew;
  uint8_t attempts = 0;
  std::string build_id;
  uint64_t size_bytes = 0;
  std::string_view reason;   // in reasons_
  uint32_t slot = kNoSlot;   // in slots_
  uint64_t retry_at_ns = 0;  // kUnreadable: another process may show the file later
  MappingHint hint;          // of the request under way
  int place = 0;
};

// One index, for all files with that key. Unmapped when it has not been used for long.
struct IndexSlot {
  std::string key;
  MappedIndex mapped;
  NameCache names;  // of `mapped`
  bool is_mapped = false;
  uint64_t last_use = 0;
};

// The set of ids that is asked by identity, without a second copy of the identities.
struct IdentityHash {
  using is_transparent = void;
  const std::deque<FileRecord>* files;
  size_t operator()(const FileIdentity& identity) const {
    return absl::Hash<FileIdentity>()(identity);
  }
  size_t operator()(uint32_t id) const { return (*this)((*files)[id].identity); }
};
struct IdentityEqual {
  using is_transparent = void;
  const std::deque<FileRecord>* files;
  bool operator()(uint32_t a, uint32_t b) const { return a == b; }
  bool operator()(uint32_t a, const FileIdentity& b) const { return (*files)[a].identity == b; }
  bool operator()(const FileIdentity& a, uint32_t b) const { return a == (*files)[b].identity; }
};

class SymbolizerImpl final : public Symbolizer {
 public:
  SymbolizerImpl(SymbolizerOptions options, std::unique_ptr<IndexCache> cache,
                 base::MetricsRegistry& metrics);

  FileId Intern(const FileIdentity& file) override;
  void Request(FileId file, uint32_t pid, uint32_t parent_pid, uint64_t map_start,
               uint64_t map_end) override;
  absl::StatusOr<std::shared_ptr<const MappedUnwindTable>> UnwindTableOf(FileId file, uint32_t pid,
                                                                         uint32_t parent_pid,
                                                                         uint64_t map_start,
                                                                         uint64_t map_end) override;
  absl::StatusOr<base::UniqueFd> OpenFile(FileId file, uint32_t pid, uint32_t parent_pid,
                                          uint64_t map_start, uint64_t map_end) override;
  size_t Poll(int timeout_ms) override;
  FileInfo Info(FileId file) const override;
  bool Lookup(FileId file, uint64_t file_offset, Symbol* symbol) override;
  KernelSymbol LookupKernel(uint64_t address) override;
  std::string_view KernelReason() override { return kernel_.Reason(); }
  uint64_t MappedBytes() const override { return mapped_bytes_ + kernel_.mapped_bytes(); }

 private:
  struct LookupCounters {
    base::Counter& hit;
    base::Counter& miss;
    base::Counter& not_ready;
  };

  FileRecord& At(uint32_t id) { return files_[id]; }
  void SetState(uint32_t id, FileState state, std::string_view reason);
  void SetUnreadable(uint32_t id, std::string_view reason, bool may_retry);

  // Opens the file from its `place` on and asks the helper: kPending. An error leaves the state.
  absl::Status OpenAndAsk(uint32_t id);
  absl::Status AskToBuild(uint32_t id, const std::string& key, base::UniqueFd elf);
  void OnResult(HelperResult result);
  void OnIdentified(uint32_t id, const BuildId& found, bool is_pseudo, base::UniqueFd elf);
  void OnBuilt(uint32_t id, const BuildId& found, bool is_pseudo, HelperJob job);
  // False when another file is at that place: the next place is asked.
  bool IsRightFile(uint32_t id, const BuildId& found, bool is_pseudo);
  void EndBuild(uint32_t id, FileState state, const std::string& reason);

  // Uses the index of `key` for the file, if there is one.
  bool UseCached(uint32_t id, const std::string& key);
  uint32_t SlotOf(const std::string& key);
  void MapSlot(uint32_t slot, MappedIndex index);
  void UnmapSlot(IndexSlot& slot);
  void UseSlot(uint32_t id, uint32_t slot);
  void ForgetNames();
  void UnmapUnused();
  void UpdateGauges();

  const SymbolizerOptions options_;
  const base::SystemClock clock_;
  const std::unique_ptr<IndexCache> cache_;
  KernelSymbols kernel_;
  HelperQueue queue_;
  UnwindTables tables_;

  std::deque<FileRecord> files_;  // by FileId; addresses are stable
  absl::flat_hash_set<uint32_t, IdentityHash, IdentityEqual> ids_;
  std::deque<IndexSlot> slots_;
  base::StringMap<uint32_t> slot_by_key_;
  // Key of an index that is being built -> the files that wait for it; the builder is the first.
  base::StringMap<std::vector<uint32_t>> building_;
  std::set<std::string, std::less<>> reasons_;
  NameReader reader_;
  size_t names_bytes_ = 0;  // of all slots' names
  uint64_t mapped_bytes_ = 0;
  size_t mapped_count_ = 0;
  uint64_t use_clock_ = 0;

  std::vector<base::Counter*> states_;
  LookupCounters lookups_;
  LookupCounters kernel_lookups_;
  base::Counter& refused_loss_;     // the same two as in bpf/include/losses.h: they go into every
  base::Counter& unreadable_loss_;  // upload, the states above do not
  base::Counter& deferred_;
  base::Counter& rebuilt_;
  base::Gauge& mapped_gauge_;
  base::Gauge& cache_gauge_;
};

base::Counter& LookupCounter(base::MetricsRegistry& metrics, const char* space,
                             const char* result) {
  return metrics.AddCounter("firewatch_symbol_lookups_total",
                            "Addresses that were looked up, by address space and result.",
                            {{"space", space}, {"result", result}});
}

// The counter that the agent's list of losses gives this name (agent/core/losses.h).
base::Counter& LossCounter(base::MetricsRegistry& metrics, const char* reason) {
  return metrics.AddCounter("firewatch_agent_lost_total",
                            "What was lost between a timer's tick and an acknowledged upload.",
                            {{"reason", reason}});
}

SymbolizerImpl::SymbolizerImpl(SymbolizerOptions options, std::unique_ptr<IndexCache> cache,
                               base::MetricsRegistry& metrics)
    : options_(std::move(options)),
      cache_(std::move(cache)),
      kernel_(options_.proc_root, *cache_, clock_, metrics),
      queue_({.helper_path = options_.helper_path,
              .max_cpu_seconds = options_.helper_max_seconds,
              .max_bytes = options_.helper_max_bytes},
             clock_, metrics),
      tables_(options_.proc_root, *cache_, queue_, clock_, metrics),
      ids_(0, IdentityHash{&files_}, IdentityEqual{&files_}),
      lookups_{LookupCounter(metrics, "user", "hit"), LookupCounter(metrics, "user", "miss"),
               LookupCounter(metrics, "user", "not_ready")},
      kernel_lookups_{LookupCounter(metrics, "kernel", "hit"),
                      LookupCounter(metrics, "kernel", "miss"),
                      LookupCounter(metrics, "kernel", "not_ready")},
      refused_loss_(LossCounter(metrics, "file_refused")),
      unreadable_loss_(LossCounter(metrics, "file_unreadable")),
      deferred_(metrics.AddCounter("firewatch_symbol_requests_deferred_total",
                                   "Requests put off because the helper's queue was full.")),
      rebuilt_(metrics.AddCounter("firewatch_symbol_index_corrupt_total",
                                  "Index files that were damaged and are built again.")),
      mapped_gauge_(metrics.AddGauge("firewatch_symbol_index_mapped_bytes",
                                     "Bytes of symbol index files that are mapped.")),
      cache_gauge_(metrics.AddGauge("firewatch_symbol_cache_bytes",
                                    "Bytes of the symbol cache directory.")) {
  for (const char* state : kStateNames) {
    states_.push_back(&metrics.AddCounter(
        "firewatch_symbol_files_total", "Files that have come into a state.", {{"state", state}}));
  }
}

FileId SymbolizerImpl::Intern(const FileIdentity& file) {
  const auto known = ids_.find(file);
  if (known != ids_.end()) return FileId{*known};
  const auto id = static_cast<uint32_t>(files_.size());
  FileRecord& record = files_.emplace_back();
  record.identity = file;
  record.build_id = file.build_id.ToHex();
  ids_.insert(id);
  states_[static_cast<size_t>(FileState::kNew)]->Add();
  return FileId{id};
}

void SymbolizerImpl::SetState(uint32_t id, FileState state, std::string_view reason) {
  FileRecord& record = At(id);
  record.state = state;
  auto interned = reasons_.find(reason);
  if (interned == reasons_.end()) interned = reasons_.emplace(reason).first;
  record.reason = *interned;
  states_[static_cast<size_t>(state)]->Add();
  if (state == FileState::kRefused) refused_loss_.Add();
  // A file that is tried again is still one file.
  if (state == FileState::kUnreadable && record.attempts == 0) unreadable_loss_.Add();
}

void SymbolizerImpl::SetUnreadable(uint32_t id, std::string_view reason, bool may_retry) {
  SetState(id, FileState::kUnreadable, reason);
  FileRecord& record = At(id);
  ++record.attempts;
  record.retry_at_ns = may_retry && record.attempts < kMaxAttempts
                           ? clock_.MonotonicNs() + (kSecond << record.attempts)
                           : kNever;
}

void SymbolizerImpl::Request(FileId file, uint32_t pid, uint32_t parent_pid, uint64_t map_start,
                             uint64_t map_end) {
  const auto id = static_cast<uint32_t>(file);
  CHECK(id < files_.size());
  FileRecord& record = At(id);
  if (record.state == FileState::kUnreadable) {
    if (record.retry_at_ns == kNever || clock_.MonotonicNs() < record.retry_at_ns) return;
  } else if (record.state != FileState::kNew) {
    return;
  }
  if (const auto why = WhyNotAFile(record.identity.path); !why.empty()) {
    return SetUnreadable(id, why, false);
  }
  if (!record.build_id.empty()) {
    if (UseCached(id, record.build_id)) return;
    if (const auto build = building_.find(record.build_id); build != building_.end()) {
      build->second.push_back(id);
      return SetState(id, FileState::kPending, "");
    }
  }
  if (queue_.full()) return deferred_.Add();
  record.hint = {.pid = pid, .parent_pid = parent_pid, .map_start = map_start, .map_end = map_end};
  record.place = 0;
  if (const absl::Status asked = OpenAndAsk(id); !asked.ok()) {
    SetUnreadable(id, base::Message(asked), true);
  }
}

absl::StatusOr<base::UniqueFd> SymbolizerImpl::OpenFile(FileId file, uint32_t pid,
                                                        uint32_t parent_pid, uint64_t map_start,
                                                        uint64_t map_end) {
  const auto id = static_cast<uint32_t>(file);
  CHECK(id < files_.size());
  const FileIdentity& identity = At(id).identity;
  if (const auto why = WhyNotAFile(identity.path); !why.empty()) return base::NotFound("{}", why);
  if (IsVdso(identity.path)) return CopyOwnVdso();
  ASSIGN_OR_RETURN(
      OpenedObject opened,
      OpenMappedObject(
          identity,
          {.pid = pid, .parent_pid = parent_pid, .map_start = map_start, .map_end = map_end},
          options_.proc_root));
  return std::move(opened.fd);
}

absl::Status SymbolizerImpl::OpenAndAsk(uint32_t id) {
  FileRecord& record = At(id);
  OpenedObject opened;
  if (IsVdso(record.identity.path)) {
    ASSIGN_OR_RETURN(opened.fd, CopyOwnVdso());
  } else {
    ASSIGN_OR_RETURN(
        opened, OpenMappedObject(record.identity, record.hint, options_.proc_root, record.place));
  }
  record.place = opened.place;
  // The kernel has told the build id: no need to ask for it first.
  if (!record.identity.build_id.empty()) {
    return AskToBuild(id, record.build_id, std::move(opened.fd));
  }
  queue_.Submit({.operation = HelperOperation::kIdentify,
                 .ticket = id,
                 .elf = std::move(opened.fd),
                 .output = {}});
  SetState(id, FileState::kPending, "");
  return absl::OkStatus();
}

absl::Status SymbolizerImpl::AskToBuild(uint32_t id, const std::string& key, base::UniqueFd elf) {
  ASSIGN_OR_RETURN(base::UniqueFd scratch, cache_->NewScratch());
  auto& waiting = building_[key];
  if (waiting.empty()) waiting.push_back(id);
  queue_.Submit({.operation = HelperOperation::kBuild,
                 .ticket = id,
                 .elf = std::move(elf),
                 .output = std::move(scratch)});
  if (At(id).state != FileState::kPending) SetState(id, FileState::kPending, "");
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const MappedUnwindTable>> SymbolizerImpl::UnwindTableOf(
    FileId file, uint32_t pid, uint32_t parent_pid, uint64_t map_start, uint64_t map_end) {
  const auto id = static_cast<uint32_t>(file);
  CHECK(id < files_.size());
  return tables_.Get(
      id, At(id).identity,
      {.pid = pid, .parent_pid = parent_pid, .map_start = map_start, .map_end = map_end});
}

size_t SymbolizerImpl::Poll(int timeout_ms) {
  kernel_.DropRetired();
  ForgetNames();
  UnmapUnused();
  const uint64_t deadline =
      clock_.MonotonicNs() + static_cast<uint64_t>(std::max(timeout_ms, 0)) * 1'000'000;
  while (true) {
    const uint64_t now = clock_.MonotonicNs();
    const auto left_ms = now < deadline ? static_cast<int>((deadline - now) / 1'000'000) : 0;
    std::vector<HelperResult> results = queue_.Poll(left_ms);
    for (HelperResult& result : results) OnResult(std::move(result));
    if (results.empty() || queue_.outstanding() == 0) break;
  }
  UpdateGauges();
  return queue_.outstanding();
}

void SymbolizerImpl::OnResult(HelperResult result) {
  if (result.job.for_table) return tables_.OnResult(std::move(result));
  const auto id = static_cast<uint32_t>(result.job.ticket);
  if (!result.failure.empty()) {
    return EndBuild(id, result.helper_died ? FileState::kRefused : FileState::kUnreadable,
                    result.failure);
  }
  const HelperAnswer& answer = result.answer;
  if (answer.status != HelperStatus::kOk) {
    const bool refused = answer.status == HelperStatus::kRefused;
    return EndBuild(id, refused ? FileState::kRefused : FileState::kUnreadable, answer.reason);
  }
  BuildId found;
  found.size = answer.id_size;
  std::copy(std::begin(answer.id), std::end(answer.id), found.bytes.begin());
  At(id).size_bytes = answer.file_bytes;
  const bool is_pseudo = answer.has_pseudo_id != 0;
  if (!IsRightFile(id, found, is_pseudo)) return;
  if (answer.operation == HelperOperation::kIdentify) {
    OnIdentified(id, found, is_pseudo, std::move(result.job.elf));
  } else {
    OnBuilt(id, found, is_pseudo, std::move(result.job));
  }
}

bool SymbolizerImpl::IsRightFile(uint32_t id, const BuildId& found, bool is_pseudo) {
  FileRecord& record = At(id);
  const BuildId& expected = record.identity.build_id;
  if (expected.empty() || (!is_pseudo && found == expected)) return true;
  ++record.place;
  if (!OpenAndAsk(id).ok()) {
    EndBuild(id, FileState::kUnreadable,
             fmt::format("{}: has build id {}, {} was mapped", record.identity.path,
                         is_pseudo ? "none" : found.ToHex(), record.build_id));
  }
  return false;
}

void SymbolizerImpl::OnIdentified(uint32_t id, const BuildId& found, bool is_pseudo,
                                  base::UniqueFd elf) {
  if (!is_pseudo) At(id).build_id = found.ToHex();
  const std::string key = KeyOf(found, is_pseudo);
  if (UseCached(id, key)) return;
  const auto build = building_.find(key);
  if (build != building_.end()) {
    build->second.push_back(id);
  } else if (const auto asked = AskToBuild(id, key, std::move(elf)); !asked.ok()) {
    EndBuild(id, FileState::kUnreadable, std::string(base::Message(asked)));
  }
}

void SymbolizerImpl::OnBuilt(uint32_t id, const BuildId& found, bool is_pseudo, HelperJob job) {
  const std::string key = KeyOf(found, is_pseudo);
  auto index = cache_->Adopt(key, found, job.output.get());
  if (!index.ok()) {
    const bool bad = index.status().code() == absl::StatusCode::kDataLoss;
    return EndBuild(id, bad ? FileState::kRefused : FileState::kUnreadable,
                    std::string(base::Message(index.status())));
  }
  const uint32_t slot = SlotOf(key);
  MapSlot(slot, *std::move(index));
  auto build = building_.extract(key);
  if (build.empty()) return UseSlot(id, slot);
  for (uint32_t waiting : build.mapped()) UseSlot(waiting, slot);
}

// The builder gets the state; files that waited for it may try with what they are mapped from.
void SymbolizerImpl::EndBuild(uint32_t id, FileState state, const std::string& reason) {
  std::vector<uint32_t> waiting;
  for (auto build = building_.begin(); build != building_.end(); ++build) {
    if (build->second.front() != id) continue;
    waiting = std::move(build->second);
    building_.erase(build);
    break;
  }
  for (uint32_t other : waiting) {
    if (other != id) SetState(other, FileState::kNew, "");
  }
  if (state == FileState::kUnreadable) {
    SetUnreadable(id, reason, true);
  } else {
    SetState(id, state, reason);
  }
}

uint32_t SymbolizerImpl::SlotOf(const std::string& key) {
  const auto [entry, is_new] = slot_by_key_.try_emplace(key, static_cast<uint32_t>(slots_.size()));
  if (is_new) slots_.emplace_back().key = key;
  return entry->second;
}

bool SymbolizerImpl::UseCached(uint32_t id, const std::string& key) {
  const auto known = slot_by_key_.find(key);
  if (known != slot_by_key_.end() && slots_[known->second].is_mapped) {
    UseSlot(id, known->second);
    return true;
  }
  auto index = cache_->Find(key);
  if (!index.ok()) return false;
  const uint32_t slot = SlotOf(key);
  MapSlot(slot, *std::move(index));
  UseSlot(id, slot);
  return true;
}

void SymbolizerImpl::MapSlot(uint32_t number, MappedIndex index) {
  IndexSlot& slot = slots_[number];
  UnmapSlot(slot);
  slot.mapped = std::move(index);
  slot.is_mapped = true;
  slot.last_use = ++use_clock_;
  mapped_bytes_ += slot.mapped.file.bytes().size();
  ++mapped_count_;
}

void SymbolizerImpl::UnmapSlot(IndexSlot& slot) {
  if (!slot.is_mapped) return;
  mapped_bytes_ -= slot.mapped.file.bytes().size();
  --mapped_count_;
  names_bytes_ -= slot.names.bytes();
  slot.names.Clear();
  slot.mapped = {};
  slot.is_mapped = false;
}

void SymbolizerImpl::UseSlot(uint32_t id, uint32_t number) {
  FileRecord& record = At(id);
  const SymbolIndex& index = slots_[number].mapped.index;
  record.slot = number;
  record.size_bytes = index.file_bytes();
  if (index.symbol_count() > 0) return SetState(id, FileState::kReady, "");
  SetState(id, FileState::kNoSymbols,
           index.has_table() ? "no function in its symbol tables"
                             : "stripped: neither .symtab nor .dynsym");
}

void SymbolizerImpl::ForgetNames() {
  if (names_bytes_ <= kMaxNamesBytes) return;
  for (IndexSlot& slot : slots_) slot.names.Clear();
  names_bytes_ = 0;
}

void SymbolizerImpl::UnmapUnused() {
  if (mapped_count_ <= kMaxMappedIndexes) return;
  std::vector<uint64_t> uses;
  for (const IndexSlot& slot : slots_) {
    if (slot.is_mapped) uses.push_back(slot.last_use);
  }
  const auto median = uses.begin() + static_cast<std::ptrdiff_t>(uses.size() / 2);
  std::nth_element(uses.begin(), median, uses.end());
  for (IndexSlot& slot : slots_) {
    if (slot.is_mapped && slot.last_use < *median) UnmapSlot(slot);
  }
}

void SymbolizerImpl::UpdateGauges() {
  mapped_gauge_.Set(static_cast<double>(MappedBytes()));
  cache_gauge_.Set(static_cast<double>(cache_->total_bytes()));
  rebuilt_.Add(cache_->corrupt_files() - rebuilt_.value());
}

FileInfo SymbolizerImpl::Info(FileId file) const {
  const auto id = static_cast<uint32_t>(file);
  CHECK(id < files_.size());
  const FileRecord& record = files_[id];
  return {.path = record.identity.path,
          .build_id = record.build_id,
          .size_bytes = record.size_bytes,
          .state = record.state,
          .reason = record.reason};
}

bool SymbolizerImpl::Lookup(FileId file, uint64_t file_offset, Symbol* symbol) {
  const auto id = static_cast<uint32_t>(file);
  CHECK(id < files_.size());
  FileRecord& record = At(id);
  if (record.state != FileState::kReady) {
    lookups_.not_ready.Add();
    return false;
  }
  IndexSlot& slot = slots_[record.slot];
  if (!slot.is_mapped) {
    auto found_again = cache_->Find(slot.key);
    if (!found_again.ok()) {
      // Evicted meanwhile: the next Request builds it again.
      SetState(id, FileState::kNew, "");
      lookups_.not_ready.Add();
      return false;
    }
    MapSlot(record.slot, *std::move(found_again));
  }
  slot.last_use = ++use_clock_;
  const SymbolIndex& index = slot.mapped.index;
  const auto vaddr = index.VaddrOf(file_offset);
  const auto found = vaddr ? index.SymbolAt(*vaddr) : std::nullopt;
  (found ? lookups_.hit : lookups_.miss).Add();
  if (!found) return false;
  const size_t before = slot.names.bytes();
  const NameCache::Names names = slot.names.Get(index.names(), found->name, reader_);
  names_bytes_ += slot.names.bytes() - before;
  *symbol = {.name = names.display, .system_name = names.linkage};
  return true;
}

KernelSymbol SymbolizerImpl::LookupKernel(uint64_t address) {
  const KernelSymbol symbol = kernel_.Lookup(address);
  (symbol.found ? kernel_lookups_.hit : kernel_lookups_.miss).Add();
  return symbol;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Symbolizer>> Symbolizer::Create(SymbolizerOptions options,
                                                               base::MetricsRegistry& metrics) {
  ASSIGN_OR_RETURN(auto cache, IndexCache::Open(options.cache_directory, options.cache_max_bytes));
  return std::make_unique<SymbolizerImpl>(std::move(options), std::move(cache), metrics);
}

}  // namespace firewatch::symbolizer
