// SPDX-License-Identifier: Apache-2.0
#include "agent/stacks/host_unwinder.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <thread>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "agent/core/proc_reader.h"
#include "agent/stacks/host_tables.h"
#include "agent/stacks/remote_memory.h"
#include "agent/stacks/rule_text.h"
#include "base/status.h"
#include "bpf/unwind.h"

namespace firewatch::agent {
namespace {

// What the hooks of bpf/unwind.h answer from; they have no argument of ours.
struct WalkedProcess {
  RemoteMemory* memory = nullptr;
  const std::vector<fw_mapping>* mappings = nullptr;  // by start
  const HostTables* tables = nullptr;
  fw_rule_cache* rule_cache = nullptr;
};
thread_local WalkedProcess walked;

const fw_mapping* FindMapping(const std::vector<fw_mapping>& mappings, uint64_t address) {
  auto after = std::upper_bound(mappings.begin(), mappings.end(), address,
                                [](uint64_t a, const fw_mapping& m) { return a < m.start; });
  if (after == mappings.begin()) return nullptr;
  --after;
  return address < after->end ? &*after : nullptr;
}

}  // namespace
}  // namespace firewatch::agent

// Declared by bpf/unwind.h.
static long fw_read_user(void* to, fw_u32 size, fw_u64 address) {
  return firewatch::agent::walked.memory->Read(to, size, address) ? 0 : -14;
}
static long fw_look_up_mapping(fw_walk*, fw_u64 address, fw_mapping* to) {
  const fw_mapping* found =
      firewatch::agent::FindMapping(*firewatch::agent::walked.mappings, address);
  if (found == nullptr) {
    to->state = FW_MAPPING_NONE;
  } else {
    *to = *found;
  }
  return 0;
}
static const fw_table* fw_table_at(fw_u32 index) {
  return firewatch::agent::walked.tables->table(index);
}
static const fw_u8* fw_slab_at(fw_u32 number) {
  return firewatch::agent::walked.tables->slab(number);
}
static fw_rule_cache* fw_rule_cache_here() { return firewatch::agent::walked.rule_cache; }

namespace firewatch::agent {
namespace {

constexpr int kPollMs = 50;

void SetRegisters(const user_regs_struct& from, fw_walk* walk) {
  walk->ip = from.rip;
  const uint64_t by_dwarf_number[FW_REGISTER_COUNT] = {
      from.rax, from.rdx, from.rcx, from.rbx, from.rsi, from.rdi, from.rbp, from.rsp,
      from.r8,  from.r9,  from.r10, from.r11, from.r12, from.r13, from.r14, from.r15};
  std::copy(std::begin(by_dwarf_number), std::end(by_dwarf_number), walk->registers);
}

class HostUnwinderImpl final : public HostUnwinder {
 public:
  HostUnwinderImpl(pid_t pid, symbolizer::Symbolizer& symbolizer)
      : pid_(pid), symbolizer_(symbolizer), memory_(pid) {}

  absl::Status Update(std::chrono::milliseconds timeout) override;
  bool IsCurrent() const override;
  HostStack Walk(const user_regs_struct& registers) override;
  uint64_t FrameOf(uint64_t address) const override;
  bool IsAnonymous(uint64_t address) const override;
  bool IsMapped(uint64_t address) const override {
    return FindMapping(mappings_, address) != nullptr;
  }
  std::string_view PathOf(uint64_t frame) const override;
  std::string RuleOf(uint64_t frame) const override;
  std::string FunctionOf(uint64_t frame) override;
  std::vector<File> Files() const override;

 private:
  struct KnownFile {
    std::string path;
    std::shared_ptr<const symbolizer::MappedUnwindTable> table;
    uint32_t table_index = FW_NO_TABLE;
    absl::Status error;
    bool settled = false;
  };

  absl::StatusOr<std::vector<ProcMapsEntry>> ReadMaps() const {
    return ProcReader("/proc").ReadMaps(Pid{static_cast<uint32_t>(pid_)});
  }
  void Settle(const ProcMapsEntry& entry, symbolizer::FileId id);
  const KnownFile* FileOf(uint64_t frame) const;
  static fw_mapping MakeMapping(const ProcMapsEntry& entry);

  const pid_t pid_;
  symbolizer::Symbolizer& symbolizer_;
  RemoteMemory memory_;
  HostTables tables_;
  std::vector<fw_mapping> mappings_;
  std::vector<ProcMapsEntry> entries_;  // what mappings_ were made from
  absl::flat_hash_map<uint32_t, KnownFile> files_;
  // On the heap: 32 KiB, and the walk has a chunk of the stack in it.
  const std::unique_ptr<fw_rule_cache> rule_cache_ = std::make_unique<fw_rule_cache>();
  const std::unique_ptr<fw_walk> walk_ = std::make_unique<fw_walk>();
  std::vector<uint64_t> frames_ = std::vector<uint64_t>(FW_WALK_FRAMES);
};

bool SameMapping(const ProcMapsEntry& a, const ProcMapsEntry& b) {
  return a.start == b.start && a.end == b.end && a.file_offset == b.file_offset && a.file == b.file;
}

bool IsFile(const ProcMapsEntry& entry) {
  return !IsAnonymousMapping(entry.file.path) && entry.file.path != "[vsyscall]";
}

// Asks once more for the file's table; settled when the answer is final.
void HostUnwinderImpl::Settle(const ProcMapsEntry& entry, symbolizer::FileId id) {
  KnownFile& file = files_[static_cast<uint32_t>(id)];
  if (file.settled) return;
  file.path = entry.file.path;
  const auto pid = static_cast<uint32_t>(pid_);
  symbolizer_.Request(id, pid, 0, entry.start, entry.end);
  auto table = symbolizer_.UnwindTableOf(id, pid, 0, entry.start, entry.end);
  file.error = table.status();
  if (absl::IsUnavailable(table.status())) return;
  file.settled = true;
  if (!table.ok()) return;
  const absl::StatusOr<uint32_t> index = tables_.Add((*table)->table);
  file.error = index.status();
  if (!index.ok()) return;
  file.table = *std::move(table);
  file.table_index = *index;
}

fw_mapping HostUnwinderImpl::MakeMapping(const ProcMapsEntry& entry) {
  fw_mapping mapping{};
  mapping.start = entry.start;
  mapping.end = entry.end;
  mapping.file_offset = entry.file_offset;
  mapping.table = FW_NO_TABLE;
  mapping.state = FW_MAPPING_ANONYMOUS;
  return mapping;
}

absl::Status HostUnwinderImpl::Update(std::chrono::milliseconds timeout) {
  ASSIGN_OR_RETURN(std::vector<ProcMapsEntry> entries, ReadMaps());
  const auto end = std::chrono::steady_clock::now() + timeout;
  std::vector<fw_mapping> mappings;
  for (bool waiting = true; waiting;) {
    waiting = false;
    mappings.clear();
    for (const ProcMapsEntry& entry : entries) {
      fw_mapping mapping = MakeMapping(entry);
      if (IsFile(entry)) {
        const symbolizer::FileId id = symbolizer_.Intern(entry.file);
        Settle(entry, id);
        const KnownFile& file = files_[static_cast<uint32_t>(id)];
        waiting |= !file.settled;
        mapping.state = FW_MAPPING_FILE;
        mapping.file_id = static_cast<uint32_t>(id);
        mapping.table = file.table_index;
      }
      mappings.push_back(mapping);
    }
    if (std::chrono::steady_clock::now() > end) break;
    waiting |= symbolizer_.Poll(kPollMs) > 0;  // for names, too: the same helper finds them
  }
  entries_ = std::move(entries);
  mappings_ = std::move(mappings);
  return absl::OkStatus();
}

bool HostUnwinderImpl::IsCurrent() const {
  const auto entries = ReadMaps();
  return entries.ok() && std::equal(entries->begin(), entries->end(), entries_.begin(),
                                    entries_.end(), SameMapping);
}

HostStack HostUnwinderImpl::Walk(const user_regs_struct& registers) {
  memory_.Forget();
  walked = {.memory = &memory_,
            .mappings = &mappings_,
            .tables = &tables_,
            .rule_cache = rule_cache_.get()};
  SetRegisters(registers, walk_.get());
  fw_walk_begin(walk_.get(), 0, FW_MAX_USER_FRAMES);
  while (fw_walk_step(walk_.get(), frames_.data(), rule_cache_.get()) == 0) {
  }
  walked = {};
  HostStack stack;
  stack.frames.assign(frames_.begin(), frames_.begin() + walk_->next);
  stack.end = static_cast<fw_stack_end>(walk_->end);
  return stack;
}

uint64_t HostUnwinderImpl::FrameOf(uint64_t address) const {
  const fw_mapping* mapping = FindMapping(mappings_, address);
  if (mapping == nullptr || mapping->state != FW_MAPPING_FILE) return address;
  return FW_FRAME_FILE << FW_FRAME_KIND_SHIFT |
         uint64_t{mapping->file_id} << FW_FRAME_FILE_OFFSET_BITS |
         (address - mapping->start + mapping->file_offset);
}

bool HostUnwinderImpl::IsAnonymous(uint64_t address) const {
  const fw_mapping* mapping = FindMapping(mappings_, address);
  return mapping != nullptr && mapping->state == FW_MAPPING_ANONYMOUS;
}

const HostUnwinderImpl::KnownFile* HostUnwinderImpl::FileOf(uint64_t frame) const {
  if (frame >> FW_FRAME_KIND_SHIFT != FW_FRAME_FILE) return nullptr;
  const auto found = files_.find(
      static_cast<uint32_t>((frame & FW_FRAME_PAYLOAD_MASK) >> FW_FRAME_FILE_OFFSET_BITS));
  return found == files_.end() ? nullptr : &found->second;
}

uint64_t OffsetOf(uint64_t frame) { return frame & ((1ull << FW_FRAME_FILE_OFFSET_BITS) - 1); }

std::string_view HostUnwinderImpl::PathOf(uint64_t frame) const {
  const KnownFile* file = FileOf(frame);
  return file == nullptr ? std::string_view() : file->path;
}

std::string HostUnwinderImpl::RuleOf(uint64_t frame) const {
  const KnownFile* file = FileOf(frame);
  if (file == nullptr) return "no file";
  if (file->table == nullptr) return "no table";
  const symbolizer::UnwindTable::Rule rule = file->table->table.Find(OffsetOf(frame));
  return RuleText(rule.rule, rule.slot);
}

std::string HostUnwinderImpl::FunctionOf(uint64_t frame) {
  if (FileOf(frame) == nullptr) return "";
  const auto id =
      static_cast<symbolizer::FileId>((frame & FW_FRAME_PAYLOAD_MASK) >> FW_FRAME_FILE_OFFSET_BITS);
  std::vector<symbolizer::SymbolFrame> functions;
  symbolizer_.Lookup(id, OffsetOf(frame), &functions);
  // The physical function: rules and sizes belong to it, not to what was inlined.
  return functions.empty() ? "" : std::string(functions.back().name);
}

std::vector<HostUnwinder::File> HostUnwinderImpl::Files() const {
  std::vector<File> files;
  for (const auto& [id, file] : files_) {
    files.push_back({.path = file.path,
                     .table_error = std::string(base::Message(file.error)),
                     .rows = file.table == nullptr ? 0 : file.table->table.row_count()});
  }
  std::sort(files.begin(), files.end(),
            [](const File& a, const File& b) { return a.path < b.path; });
  return files;
}

}  // namespace

absl::StatusOr<std::unique_ptr<HostUnwinder>> HostUnwinder::Create(
    pid_t pid, symbolizer::Symbolizer& symbolizer) {
  auto unwinder = std::make_unique<HostUnwinderImpl>(pid, symbolizer);
  // Says at once when the process may not be looked at.
  const auto maps = ProcReader("/proc").ReadMaps(Pid{static_cast<uint32_t>(pid)});
  if (!maps.ok()) return maps.status();
  return unwinder;
}

}  // namespace firewatch::agent
