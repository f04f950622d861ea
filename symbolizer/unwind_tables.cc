// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/unwind_tables.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "symbolizer/unwind/cfi_reader.h"

namespace firewatch::symbolizer {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;
constexpr int kMaxAttempts = 8;
constexpr int kMaxDeaths = 2;
// Between two attempts through processes that were not tried last.
constexpr uint64_t kOtherProcessNs = 2 * kSecond;

base::Counter& TableCounter(base::MetricsRegistry& metrics, const char* result) {
  return metrics.AddCounter("firewatch_unwind_tables_total",
                            "Unwind tables that were asked for, by where they came from.",
                            {{"result", result}});
}

absl::Status Pending() { return base::Unavailable("the unwind table is being built"); }

}  // namespace

std::string KeyOf(const BuildId& id, bool is_pseudo) {
  return is_pseudo ? "pseudo-" + id.ToHex() : id.ToHex();
}

UnwindTables::UnwindTables(std::string proc_root, IndexCache& cache, HelperQueue& queue,
                           const base::Clock& clock, base::MetricsRegistry& metrics)
    : proc_root_(std::move(proc_root)),
      cache_(cache),
      queue_(queue),
      clock_(clock),
      built_(TableCounter(metrics, "built")),
      cached_(TableCounter(metrics, "cached")),
      refused_(TableCounter(metrics, "refused")),
      unreadable_(TableCounter(metrics, "unreadable")),
      fdes_(metrics.AddCounter("firewatch_unwind_fdes_total",
                               "Functions met in the call frame information of files.")),
      rows_(metrics.AddCounter("firewatch_unwind_rows_total",
                               "Rows of the unwind tables that were built.")),
      rows_no_rule_(metrics.AddCounter("firewatch_unwind_rows_no_rule_total",
                                       "Rows that no rule of the tables can express.")) {
  for (size_t i = 0; i < kCfiReasonCount; ++i) {
    const auto reason = static_cast<CfiReason>(i);
    const std::string name = IsRefusal(reason) ? "firewatch_unwind_fdes_refused_total"
                                               : "firewatch_unwind_fdes_unused_total";
    reasons_.push_back(
        reason == CfiReason::kNone
            ? nullptr
            : &metrics.AddCounter(name,
                                  IsRefusal(reason)
                                      ? "Functions whose call frame information is malformed."
                                      : "Functions that need no rows.",
                                  {{"reason", std::string(CfiReasonLabel(reason))}}));
  }
}

UnwindTables::File& UnwindTables::At(uint32_t id, const FileIdentity& identity) {
  if (files_.size() <= id) files_.resize(size_t{id} + 1);
  File& file = files_[id];
  if (file.identity == nullptr) {
    file.identity = &identity;
    file.key = identity.build_id.ToHex();
    if (const auto why = WhyNotAFile(identity.path); !why.empty()) {
      file.error = base::InvalidArgument("{}", why);
    }
  }
  return file;
}

absl::StatusOr<UnwindTables::Table> UnwindTables::Get(uint32_t id, const FileIdentity& identity,
                                                      const MappingHint& hint) {
  File& file = At(id, identity);
  if (!file.error.ok()) return file.error;
  if (file.asked) return Pending();
  if (!file.key.empty()) {
    auto table = FromKey(file.key);
    if (table.ok() || table.status().code() != absl::StatusCode::kNotFound) return table;
    if (!slots_[file.key].error.ok()) return table;
  }
  // Whoever asks again and again may name a process that is gone; one that lives need not wait: its
  // mount namespace may be the only one with the file.
  const uint64_t now_ns = clock_.MonotonicNs();
  const bool extra = now_ns < file.retry_at_ns;
  if (extra && (hint.pid == file.hint.pid || now_ns < file.other_at_ns)) {
    return base::Unavailable("{}", file.reason);
  }
  if (queue_.full()) return Pending();
  if (extra) file.other_at_ns = now_ns + kOtherProcessNs;
  file.extra = extra;
  file.hint = hint;
  file.place = 0;
  if (const absl::Status asked = OpenAndAsk(id); !asked.ok()) {
    Postpone(id, std::string(base::Message(asked)));
    return file.error.ok() ? base::Unavailable("{}", file.reason) : file.error;
  }
  return Pending();
}

void UnwindTables::Forget(uint32_t id) {
  if (id < files_.size()) files_[id] = File();
}

void UnwindTables::ForgetSlots() {
  base::StringSet used;
  for (const File& file : files_) {
    if (!file.key.empty()) used.insert(file.key);
  }
  absl::erase_if(slots_, [&used](const auto& entry) {
    return !used.contains(entry.first) && !entry.second.building;
  });
}

absl::StatusOr<UnwindTables::Table> UnwindTables::FromKey(const std::string& key) {
  Slot& slot = slots_[key];
  if (!slot.error.ok()) return slot.error;
  if (slot.building) return Pending();
  if (slot.fresh != nullptr) return std::exchange(slot.fresh, nullptr);
  if (auto table = slot.table.lock()) return table;
  auto mapped = cache_.FindTable(key);
  if (!mapped.ok()) return base::NotFound("not in the cache");
  cached_.Add();
  auto table = std::make_shared<const MappedUnwindTable>(*std::move(mapped));
  slot.table = table;
  return table;
}

absl::Status UnwindTables::OpenAndAsk(uint32_t id) {
  File& file = files_[id];
  OpenedObject opened;
  if (IsVdso(file.identity->path)) {
    ASSIGN_OR_RETURN(opened.fd, CopyOwnVdso());
  } else {
    ASSIGN_OR_RETURN(opened, OpenMappedObject(*file.identity, file.hint, proc_root_, file.place));
  }
  file.place = opened.place;
  return Ask(id, std::move(opened.fd));
}

// For the table when the file is known, else which file it is.
absl::Status UnwindTables::Ask(uint32_t id, base::UniqueFd elf) {
  File& file = files_[id];
  HelperJob job = {.operation = HelperOperation::kIdentify,
                   .ticket = id,
                   .for_table = true,
                   .elf = std::move(elf),
                   .output = {}};
  if (!file.key.empty()) {
    job.operation = HelperOperation::kTable;
    ASSIGN_OR_RETURN(job.output, cache_.NewScratch());
    slots_[file.key].building = true;
  }
  queue_.Submit(std::move(job));
  file.asked = true;
  return absl::OkStatus();
}

void UnwindTables::OnResult(HelperResult result) {
  const auto id = static_cast<uint32_t>(result.job.ticket);
  File& file = files_[id];
  file.asked = false;
  if (!file.key.empty()) slots_[file.key].building = false;
  if (!result.failure.empty()) {
    // Once may be an accident: whoever runs out of memory kills what has much of it, and a libc
    // that is refused for that would cut every stack.
    if (result.helper_died && ++file.deaths == kMaxDeaths) {
      return Refuse(id, base::InvalidArgument("{}", result.failure));
    }
    return Postpone(id, result.failure);
  }
  const HelperAnswer& answer = result.answer;
  BuildId found;
  found.size = answer.id_size;
  std::copy(std::begin(answer.id), std::end(answer.id), found.bytes.begin());
  const bool is_pseudo = answer.has_pseudo_id != 0;
  // Without an id: it was refused before it could be known.
  if (!found.empty() && !IsRightFile(id, found, is_pseudo)) return;
  if (answer.status == HelperStatus::kRefused || answer.status == HelperStatus::kOverBudget) {
    if (!found.empty()) file.key = KeyOf(found, is_pseudo);
    return Refuse(id, base::InvalidArgument("{}", answer.reason));
  }
  if (answer.status != HelperStatus::kOk) return Postpone(id, answer.reason);
  file.key = KeyOf(found, is_pseudo);
  if (answer.operation == HelperOperation::kTable) {
    OnBuilt(id, found, answer, std::move(result.job));
  } else {
    OnIdentified(id, std::move(result.job));
  }
}

void UnwindTables::OnIdentified(uint32_t id, HelperJob job) {
  // Somebody else has it, or builds it, or the content has none: the next Get finds that.
  auto table = FromKey(files_[id].key);
  if (table.ok()) slots_[files_[id].key].fresh = *std::move(table);
  if (table.status().code() != absl::StatusCode::kNotFound) return;
  if (!slots_[files_[id].key].error.ok()) return;
  if (const absl::Status asked = Ask(id, std::move(job.elf)); !asked.ok()) {
    Postpone(id, std::string(base::Message(asked)));
  }
}

void UnwindTables::OnBuilt(uint32_t id, const BuildId& found, const HelperAnswer& answer,
                           HelperJob job) {
  const std::string& key = files_[id].key;
  auto mapped = cache_.AdoptTable(key, found, job.output.get());
  if (!mapped.ok()) {
    if (mapped.status().code() == absl::StatusCode::kDataLoss) return Refuse(id, mapped.status());
    return Postpone(id, std::string(base::Message(mapped.status())));
  }
  Count(answer);
  Slot& slot = slots_[key];
  slot.fresh = std::make_shared<const MappedUnwindTable>(*std::move(mapped));
  slot.table = slot.fresh;
}

bool UnwindTables::IsRightFile(uint32_t id, const BuildId& found, bool is_pseudo) {
  File& file = files_[id];
  const BuildId& expected = file.identity->build_id;
  if (expected.empty() || (!is_pseudo && found == expected)) return true;
  ++file.place;
  if (!OpenAndAsk(id).ok()) {
    Postpone(id, fmt::format("{}: has build id {}, {} was mapped", file.identity->path,
                             is_pseudo ? "none" : found.ToHex(), expected.ToHex()));
  }
  return false;
}

void UnwindTables::Postpone(uint32_t id, std::string reason) {
  File& file = files_[id];
  file.reason = std::move(reason);
  if (file.extra) return;
  if (file.attempts == 0) unreadable_.Add();
  ++file.attempts;
  file.retry_at_ns = clock_.MonotonicNs() + (kSecond << file.attempts);
  if (file.attempts >= kMaxAttempts) file.error = base::NotFound("{}", file.reason);
}

void UnwindTables::Refuse(uint32_t id, const absl::Status& error) {
  refused_.Add();
  File& file = files_[id];
  file.error = error;
  if (!file.key.empty()) slots_[file.key].error = error;
}

void UnwindTables::Count(const HelperAnswer& answer) {
  built_.Add();
  fdes_.Add(answer.fdes);
  rows_.Add(answer.rows);
  rows_no_rule_.Add(answer.rows_no_rule);
  for (size_t i = 1; i < kCfiReasonCount; ++i) {
    if (answer.fde_reasons[i] != 0) reasons_[i]->Add(answer.fde_reasons[i]);
  }
}

}  // namespace firewatch::symbolizer
