// SPDX-License-Identifier: Apache-2.0
// The Symbolizer: which file is in which state. A file's way:
//
//   Intern -> kNew -> Request: open it -> kPending -> helper identifies it (build id)
//     -> index in the cache?  map it -> kReady
//     -> else the helper builds it -> check, publish, map -> kReady | kNoSymbols
//
// A file whose build id the kernel has told skips the first question, and when the index is in the
// cache it is not even opened. Files with one id share one index. Unwind tables take a way of their
// own beside it (unwind_tables.h), through the same helper and the same cache. The states stand in
// file_records.h, what is mapped in index_slots.h. Everything slow or dangerous is elsewhere:
// helper/ parses, index/ checks and maps, process/ opens.
#include "symbolizer/symbolizer.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/status.h"
#include "symbolizer/file_records.h"
#include "symbolizer/helper/helper_queue.h"
#include "symbolizer/index/index_cache.h"
#include "symbolizer/index_slots.h"
#include "symbolizer/line_builds.h"
#include "symbolizer/process/jit_names.h"
#include "symbolizer/process/kernel_symbols.h"
#include "symbolizer/process/mapped_object.h"
#include "symbolizer/unwind_tables.h"

namespace firewatch::symbolizer {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;

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
  void NoteUse(FileId file, uint64_t frames) override;
  bool WaitForLines(int timeout_ms) override;
  std::vector<FileSegment> SegmentsOf(FileId file) override;
  FileInfo Info(FileId file) const override;
  NameReason Lookup(FileId file, uint64_t file_offset, std::vector<SymbolFrame>* frames) override;
  void RequestJit(uint32_t pid, uint64_t incarnation,
                  absl::FunctionRef<std::optional<JitMarker>()> find_marker) override;
  NameReason LookupJit(uint64_t incarnation, uint64_t address,
                       std::vector<SymbolFrame>* frames) override;
  void RequestKernel() override { kernel_.Request(); }
  bool IsKernelPending() const override { return kernel_.is_pending(); }
  void WaitForKernel() override;
  KernelSymbol LookupKernel(uint64_t address) override;
  std::string_view KernelReason() override { return kernel_.Reason(); }
  std::vector<FileId> ForgetUnused(const FileSet& kept) override;
  uint64_t HelperCpuNs() const override {
    return queue_.cpu_ns() + lines_.cpu_ns() + kernel_.child_cpu_ns();
  }
  uint64_t MappedBytes() const override { return slots_.mapped_bytes() + kernel_.mapped_bytes(); }

 private:
  struct LookupCounters {
    base::Counter& hit;
    base::Counter& miss;
    base::Counter& not_ready;
  };

  FileRecord& At(uint32_t id) { return files_[id]; }

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
  void UseSlot(uint32_t id, uint32_t slot);
  // Maps the file's index again if need be. nullptr when it has none (any more).
  IndexSlot* SlotForReading(uint32_t id);
  void WantLines(uint32_t id);
  void PollLines(int timeout_ms);
  void OnLines(LineBuilds::Outcome outcome);
  void UpdateGauges();

  const SymbolizerOptions options_;
  const base::SystemClock clock_;
  const std::unique_ptr<IndexCache> cache_;
  KernelSymbols kernel_;
  JitNames jit_;
  HelperQueue queue_;
  UnwindTables tables_;
  LineBuilds lines_;

  FileRecords files_;  // by FileId
  IndexSlots slots_;
  // Key of an index that is being built -> the files that wait for it; the builder is the first.
  base::StringMap<std::vector<uint32_t>> building_;
  JitSymbol jit_symbol_;  // the last answer of LookupJit

  LookupCounters lookups_;
  LookupCounters kernel_lookups_;
  LookupCounters jit_lookups_;
  base::Counter& deferred_;
  base::Counter& rebuilt_;
  base::Gauge& mapped_gauge_;
  base::Gauge& cache_gauge_;
  base::Gauge& files_gauge_;
};

base::Counter& LookupCounter(base::MetricsRegistry& metrics, const char* space,
                             const char* result) {
  return metrics.AddCounter("firewatch_symbol_lookups_total",
                            "Addresses that were looked up, by address space and result.",
                            {{"space", space}, {"result", result}});
}

SymbolizerImpl::SymbolizerImpl(SymbolizerOptions options, std::unique_ptr<IndexCache> cache,
                               base::MetricsRegistry& metrics)
    : options_(std::move(options)),
      cache_(std::move(cache)),
      kernel_(options_.proc_root, *cache_, clock_, metrics,
              options_.proc_root == "/proc" ? BpfProgramReader::ForThisKernel() : nullptr),
      jit_(options_.proc_root, clock_, metrics),
      queue_({.helper_path = options_.helper_path,
              .max_cpu_seconds = options_.helper_max_seconds,
              .max_bytes = options_.helper_max_bytes},
             clock_, metrics),
      tables_(options_.proc_root, *cache_, queue_, clock_, metrics),
      lines_({.helper_path = options_.helper_path,
              .proc_root = options_.proc_root,
              .max_cpu_seconds = options_.lines_max_seconds,
              .max_bytes = options_.lines_max_bytes,
              .budget = options_.lines_budget},
             *cache_, clock_, metrics),
      files_(clock_, metrics),
      slots_(*cache_),
      lookups_{LookupCounter(metrics, "user", "hit"), LookupCounter(metrics, "user", "miss"),
               LookupCounter(metrics, "user", "not_ready")},
      kernel_lookups_{LookupCounter(metrics, "kernel", "hit"),
                      LookupCounter(metrics, "kernel", "miss"),
                      LookupCounter(metrics, "kernel", "not_ready")},
      jit_lookups_{LookupCounter(metrics, "jit", "hit"), LookupCounter(metrics, "jit", "miss"),
                   LookupCounter(metrics, "jit", "not_ready")},
      deferred_(metrics.AddCounter("firewatch_symbol_requests_deferred_total",
                                   "Requests put off because the helper's queue was full.")),
      rebuilt_(metrics.AddCounter("firewatch_symbol_index_corrupt_total",
                                  "Index files that were damaged and are built again.")),
      mapped_gauge_(metrics.AddGauge("firewatch_symbol_index_mapped_bytes",
                                     "Bytes of symbol index files that are mapped.")),
      cache_gauge_(
          metrics.AddGauge("firewatch_symbol_cache_bytes", "Bytes of the symbol cache directory.")),
      files_gauge_(metrics.AddGauge("firewatch_symbol_files_kept",
                                    "Files that a mapping, a sample or the kernel side knows.")) {}

// No symbol covers an address: one of a debug file might.
NameReason ReasonOfGap(const IndexSlot& slot) {
  switch (slot.no_lines) {
    case NameReason::kPending:
    case NameReason::kDebugMismatch:
    case NameReason::kOverBudget:
      return slot.no_lines;
    default:
      return NameReason::kNoSymbols;
  }
}

FileId SymbolizerImpl::Intern(const FileIdentity& file) { return FileId{files_.Intern(file)}; }

void SymbolizerImpl::Request(FileId file, uint32_t pid, uint32_t parent_pid, uint64_t map_start,
                             uint64_t map_end) {
  const auto id = static_cast<uint32_t>(file);
  CHECK(id < files_.size());
  FileRecord& record = At(id);
  if (record.forgotten) return;
  if (options_.on_use != nullptr) {
    record.use_hint = {
        .pid = pid, .parent_pid = parent_pid, .map_start = map_start, .map_end = map_end};
  }
  if (record.state == FileState::kUnreadable) {
    if (record.retry_at_ns == kNever || clock_.MonotonicNs() < record.retry_at_ns) return;
  } else if (record.state != FileState::kNew) {
    // Lines come later: by then another process may be the one to find the file by.
    if (record.slot != kNoSlot && slots_[record.slot].no_lines == NameReason::kPending &&
        clock_.MonotonicNs() >= record.retry_at_ns) {
      record.retry_at_ns = clock_.MonotonicNs() + kSecond;
      record.hint = {
          .pid = pid, .parent_pid = parent_pid, .map_start = map_start, .map_end = map_end};
      WantLines(id);
    }
    return;
  }
  if (const auto why = WhyNotAFile(record.identity.path); !why.empty()) {
    files_.SetUnreadable(id, why, false);
    record.no_names = NameReason::kAnonymousMemory;
    return;
  }
  record.hint = {.pid = pid, .parent_pid = parent_pid, .map_start = map_start, .map_end = map_end};
  if (!record.build_id.empty()) {
    if (UseCached(id, record.build_id)) return;
    if (const auto build = building_.find(record.build_id); build != building_.end()) {
      build->second.push_back(id);
      return files_.SetState(id, FileState::kPending, "");
    }
  }
  if (queue_.full()) return deferred_.Add();
  record.place = 0;
  if (const absl::Status asked = OpenAndAsk(id); !asked.ok()) {
    files_.SetUnreadable(id, base::Message(asked), true);
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
  files_.SetState(id, FileState::kPending, "");
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
  if (At(id).state != FileState::kPending) files_.SetState(id, FileState::kPending, "");
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const MappedUnwindTable>> SymbolizerImpl::UnwindTableOf(
    FileId file, uint32_t pid, uint32_t parent_pid, uint64_t map_start, uint64_t map_end) {
  const auto id = static_cast<uint32_t>(file);
  CHECK(id < files_.size());
  if (At(id).forgotten) return base::NotFound("nobody maps the file any more");
  return tables_.Get(
      id, At(id).identity,
      {.pid = pid, .parent_pid = parent_pid, .map_start = map_start, .map_end = map_end});
}

size_t SymbolizerImpl::Poll(int timeout_ms) {
  kernel_.DropRetired();
  slots_.UnmapUnused();
  const uint64_t deadline =
      clock_.MonotonicNs() + static_cast<uint64_t>(std::max(timeout_ms, 0)) * 1'000'000;
  while (true) {
    const uint64_t now = clock_.MonotonicNs();
    const auto left_ms = now < deadline ? static_cast<int>((deadline - now) / 1'000'000) : 0;
    std::vector<HelperResult> results = queue_.Poll(left_ms);
    for (HelperResult& result : results) OnResult(std::move(result));
    if (results.empty() || queue_.outstanding() == 0) break;
  }
  kernel_.Poll(0);
  PollLines(0);
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
    const bool refused =
        answer.status == HelperStatus::kRefused || answer.status == HelperStatus::kOverBudget;
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
  const uint32_t slot = slots_.Put(key, *std::move(index));
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
    if (other != id) files_.SetState(other, FileState::kNew, "");
  }
  if (state == FileState::kUnreadable) {
    files_.SetUnreadable(id, reason, true);
  } else {
    files_.SetState(id, state, reason);
  }
}

bool SymbolizerImpl::UseCached(uint32_t id, const std::string& key) {
  const auto slot = slots_.Find(key);
  if (slot.has_value()) UseSlot(id, *slot);
  return slot.has_value();
}

void SymbolizerImpl::UseSlot(uint32_t id, uint32_t number) {
  FileRecord& record = At(id);
  IndexSlot& slot = slots_[number];
  const SymbolIndex& index = slot.mapped.index;
  record.slot = number;
  record.size_bytes = index.file_bytes();
  if (!options_.lines) {
    slot.no_lines = NameReason::kLinesOff;
  } else if (index.lines_state() != LinesState::kNotTried) {
    slot.no_lines = ReasonOf(index.lines_state());
  } else if (IsVdso(record.identity.path)) {
    slot.no_lines = NameReason::kNoDebugInfo;
  } else {
    if (slot.no_lines == NameReason::kNone) {  // evicted, with its lines
      slot.no_lines = NameReason::kPending;
      lines_.Forget(slot.key);
    }
    if (slot.no_lines == NameReason::kPending) WantLines(id);
  }
  if (index.symbol_count() > 0 || index.has_lines())
    return files_.SetState(id, FileState::kReady, "");
  if (slot.no_lines == NameReason::kDebugMismatch || slot.no_lines == NameReason::kOverBudget) {
    return files_.SetState(id, FileState::kNoSymbols, slot.no_lines, slot.lines_text);
  }
  if (index.has_table()) {
    return files_.SetState(id, FileState::kNoSymbols, "no function in its symbol tables");
  }
  if (record.build_id.empty()) {
    return files_.SetState(id, FileState::kNoSymbols, NameReason::kNoBuildId,
                           "stripped, and without a build id nothing else can be found");
  }
  files_.SetState(id, FileState::kNoSymbols, NameReason::kStripped,
                  "stripped: neither .symtab nor .dynsym");
}

void SymbolizerImpl::WantLines(uint32_t id) {
  const FileRecord& record = At(id);
  if (!options_.lines) return;
  lines_.Want(slots_[record.slot].key, record.identity, record.hint);
}

void SymbolizerImpl::PollLines(int timeout_ms) {
  if (!options_.lines) return;
  for (LineBuilds::Outcome& outcome : lines_.Poll(timeout_ms)) OnLines(std::move(outcome));
}

void SymbolizerImpl::OnLines(LineBuilds::Outcome outcome) {
  const auto known = slots_.NumberOf(outcome.key);
  if (!known.has_value()) return;
  IndexSlot& slot = slots_[*known];
  slot.no_lines = outcome.no_lines;
  slot.lines_text = outcome.text;
  if (outcome.built) {
    auto index = cache_->Adopt(outcome.key, outcome.id, outcome.output.get());
    if (!index.ok()) {
      slot.no_lines = NameReason::kRefused;
      slot.lines_text = base::Message(index.status());
    } else {
      slots_.Put(outcome.key, *std::move(index));
    }
  }
  if (!slot.is_mapped) return;  // each file learns it when it is looked up
  for (uint32_t id = 0; id < files_.size(); ++id) {
    if (At(id).slot == *known) UseSlot(id, *known);
  }
}

void SymbolizerImpl::NoteUse(FileId file, uint64_t frames) {
  const FileRecord& record = At(static_cast<uint32_t>(file));
  if (options_.on_use != nullptr && !record.build_id.empty() && record.use_hint.pid != 0 &&
      !IsVdso(record.identity.path)) {
    options_.on_use({.file = record.identity,
                     .id = BuildId::FromHex(record.build_id),
                     .pid = record.use_hint.pid,
                     .parent_pid = record.use_hint.parent_pid,
                     .map_start = record.use_hint.map_start,
                     .map_end = record.use_hint.map_end,
                     .frames = frames});
  }
  if (record.slot == kNoSlot || slots_[record.slot].no_lines != NameReason::kPending) return;
  lines_.AddWeight(slots_[record.slot].key, frames);
}

bool SymbolizerImpl::WaitForLines(int timeout_ms) {
  const uint64_t deadline =
      clock_.MonotonicNs() + static_cast<uint64_t>(std::max(timeout_ms, 0)) * 1'000'000;
  while (options_.lines) {
    PollLines(50);
    if (!lines_.busy()) break;
    if (clock_.MonotonicNs() >= deadline) return false;
  }
  return true;
}

std::vector<FileId> SymbolizerImpl::ForgetUnused(const FileSet& kept) {
  std::vector<FileId> forgotten;
  for (const uint32_t id :
       files_.ForgetUnused(kept, [this](uint32_t file) { return tables_.IsAsked(file); })) {
    tables_.Forget(id);
    forgotten.push_back(FileId{id});
  }
  files_gauge_.Set(static_cast<double>(files_.kept_count()));
  if (forgotten.empty()) return forgotten;
  tables_.ForgetSlots();
  std::vector<bool> used(slots_.size());
  for (uint32_t id = 0; id < files_.size(); ++id) {
    if (files_[id].slot != kNoSlot) used[files_[id].slot] = true;
  }
  slots_.ForgetUnused(used, [this](const std::string& key) { return lines_.Drop(key); });
  return forgotten;
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
  FileInfo info = {.path = record.identity.path,
                   .build_id = record.build_id,
                   .content_id = record.build_id,
                   .size_bytes = record.size_bytes,
                   .state = record.state,
                   .no_names = record.no_names,
                   .no_lines = record.no_names,
                   .reason = record.reason};
  if (record.slot == kNoSlot) return info;
  const IndexSlot& slot = slots_[record.slot];
  if (record.build_id.empty()) info.content_id = slot.key;
  info.no_lines = slot.no_lines;
  if (info.reason.empty()) info.reason = slot.lines_text;
  return info;
}

IndexSlot* SymbolizerImpl::SlotForReading(uint32_t id) {
  if (At(id).slot == kNoSlot) return nullptr;
  IndexSlot* slot = slots_.ForReading(At(id).slot);
  // Evicted meanwhile: the next Request builds it again.
  if (slot == nullptr) files_.SetState(id, FileState::kNew, "");
  return slot;
}

std::vector<FileSegment> SymbolizerImpl::SegmentsOf(FileId file) {
  std::vector<FileSegment> segments;
  const IndexSlot* slot = SlotForReading(static_cast<uint32_t>(file));
  if (slot == nullptr) return segments;
  const SymbolIndex& index = slot->mapped.index;
  for (size_t i = 0; i < index.segment_count(); ++i) {
    const IndexSegment segment = index.SegmentNumber(i);
    segments.push_back({.file_offset = segment.file_offset,
                        .vaddr = segment.vaddr,
                        .file_size = segment.file_size});
  }
  return segments;
}

NameReason SymbolizerImpl::Lookup(FileId file, uint64_t file_offset,
                                  std::vector<SymbolFrame>* frames) {
  frames->clear();
  slots_.ForgetNames();
  const auto id = static_cast<uint32_t>(file);
  CHECK(id < files_.size());
  FileRecord& record = At(id);
  if (record.state != FileState::kReady) {
    lookups_.not_ready.Add();
    return record.no_names;
  }
  IndexSlot* slot = SlotForReading(id);
  if (slot == nullptr) {
    lookups_.not_ready.Add();
    return record.no_names;
  }
  std::array<IndexFrame, kMaxIndexFrames> found;
  const size_t count = slot->mapped.index.FindOffset(file_offset, found);
  (count != 0 ? lookups_.hit : lookups_.miss).Add();
  // Switched off, lines that the index has from before are not shown either.
  for (size_t i = options_.lines || count == 0 ? 0 : count - 1; i < count; ++i) {
    IndexFrame& frame = found[i];
    if (!options_.lines) frame.file = frame.line = frame.start_line = 0;
    frames->push_back(slots_.FrameOf(*slot, frame));
  }
  return count == 0 ? ReasonOfGap(*slot) : NameReason::kNone;
}

void SymbolizerImpl::RequestJit(uint32_t pid, uint64_t incarnation,
                                absl::FunctionRef<std::optional<JitMarker>()> find_marker) {
  jit_.Request(pid, incarnation);
  if (!jit_.WantsDump(incarnation)) return;
  base::UniqueFd dump;
  if (const auto marker = find_marker()) {
    auto opened = OpenFile(marker->file, pid, 0, marker->map_start, marker->map_end);
    if (opened.ok()) dump = *std::move(opened);
  }
  jit_.SetDump(incarnation, std::move(dump));
}

NameReason SymbolizerImpl::LookupJit(uint64_t incarnation, uint64_t address,
                                     std::vector<SymbolFrame>* frames) {
  frames->clear();
  const bool found = jit_.Lookup(incarnation, address, &jit_symbol_);
  (found ? jit_lookups_.hit : jit_lookups_.miss).Add();
  if (!found) return NameReason::kAnonymousMemory;
  frames->push_back({.name = jit_symbol_.name,
                     .system_name = jit_symbol_.name,
                     .file = jit_symbol_.file,
                     .line = jit_symbol_.line});
  return NameReason::kNone;
}

void SymbolizerImpl::WaitForKernel() {
  kernel_.Request();
  while (kernel_.is_pending()) kernel_.Poll(1'000);
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
