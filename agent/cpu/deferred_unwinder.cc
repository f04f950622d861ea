// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/deferred_unwinder.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>
#include <utility>

// Rules come out of the mapped table, see below.
struct fw_walk;
static long search_mapped_table(fw_walk* walk);
#define FW_SEARCH_RULE(walk) search_mapped_table(walk)
#include "bpf/unwind.h"

namespace firewatch::agent {

// The hooks of bpf/unwind.h have no argument of ours: what they answer from, during one walk.
struct DeferredWalk {
  DeferredUnwinder* unwinder = nullptr;
  const SampleRecord* sample = nullptr;
  const Process* process = nullptr;
  const ProcessMapping* blocked = nullptr;  // a table that this walk needs has not come yet
  bool above_copy = false;                  // it went on above the copy of the stack

  long Read(void* to, uint32_t size, uint64_t address);
  long LookUp(uint64_t address, fw_mapping* to);
  long SearchRule(fw_walk* walk);
};

namespace {

thread_local DeferredWalk* walking = nullptr;

// A read so far above the copy is of the stack still.
constexpr uint64_t kAboveCopy = 1 << 20;
constexpr uint32_t kFileIdLimit = 1u << (FW_FRAME_KIND_SHIFT - FW_FRAME_FILE_OFFSET_BITS);

}  // namespace
}  // namespace firewatch::agent

// Declared by bpf/unwind.h.
static long fw_read_user(void* to, fw_u32 size, fw_u64 address) {
  return firewatch::agent::walking->Read(to, size, address);
}
static long fw_look_up_mapping(fw_walk*, fw_u64 address, fw_mapping* to) {
  return firewatch::agent::walking->LookUp(address, to);
}
static long search_mapped_table(fw_walk* walk) {
  return firewatch::agent::walking->SearchRule(walk);
}
// Only asked by the search that is replaced.
static const fw_table* fw_table_at(fw_u32) { return nullptr; }
static const fw_u8* fw_slab_at(fw_u32) { return nullptr; }
static fw_rule_cache* fw_rule_cache_here() { return nullptr; }

namespace firewatch::agent {

// On the heap: with its chunk of the stack a walk has 2 KiB.
struct DeferredUnwinder::Walker {
  fw_walk walk{};
  std::vector<fw_u64> frames = std::vector<fw_u64>(FW_WALK_FRAMES);
};

// A sample with bytes of its own.
struct DeferredUnwinder::Kept {
  std::vector<fw_u64> words;
  SampleRecord sample;
  Process process;
  size_t window = 0;
  ProcessMapping waits_for;  // whose table the walk came to
};

long DeferredWalk::Read(void* to, uint32_t size, uint64_t address) {
  const std::span<const std::byte> stack = sample->stack;
  const uint64_t offset = address - sample->registers->start;
  if (offset >= stack.size() || size > stack.size() - offset) {
    above_copy |= offset + size > stack.size() && offset < stack.size() + kAboveCopy;
    return -1;
  }
  std::memcpy(to, stack.data() + offset, size);
  return 0;
}

long DeferredWalk::LookUp(uint64_t address, fw_mapping* to) {
  const ProcessMapping* mapping = process->mappings->Find(address);
  to->state = FW_MAPPING_NONE;
  if (mapping == nullptr) return 0;
  to->start = mapping->start;
  to->end = mapping->end;
  to->file_offset = mapping->file_offset;
  to->table = FW_NO_TABLE;
  to->state = FW_MAPPING_ANONYMOUS;
  if (mapping->anonymous) return 0;
  to->state = FW_MAPPING_NEW_FILE;
  const auto id = static_cast<uint32_t>(mapping->file);
  if (id >= kFileIdLimit) return 0;
  const DeferredUnwinder::File& file = unwinder->Ask(*mapping, *process);
  if (file.state == DeferredUnwinder::TableState::kAsked) blocked = mapping;
  to->state = FW_MAPPING_FILE;
  to->file_id = id;
  to->table = file.table;
  return 0;
}

// As fw_search_rule does it in the slabs.
long DeferredWalk::SearchRule(fw_walk* walk) {
  const fw_mapping* mapping = fw_current_mapping(walk);
  if (mapping->table >= unwinder->tables_.size()) {
    return fw_no_rule(walk, FW_STACK_END_NO_TABLE);
  }
  const symbolizer::UnwindTable::Rule found = unwinder->tables_[mapping->table]->table.Find(
      walk->address - mapping->start + mapping->file_offset);
  if (found.rule.cfa == FW_CFA_NONE) return fw_no_rule(walk, FW_STACK_END_NO_RULE);
  std::memcpy(&walk->rule, &found.rule, sizeof(walk->rule));
  std::memcpy(&walk->slot, &found.slot, sizeof(walk->slot));
  return 0;
}

DeferredUnwinder::DeferredUnwinder(symbolizer::Symbolizer& symbolizer,
                                   base::MetricsRegistry& metrics, DeferredLimits limits)
    : symbolizer_(symbolizer),
      limits_(limits),
      walker_(std::make_unique<Walker>()),
      walked_(metrics.AddCounter("firewatch_deferred_stacks_total",
                                 "Stacks that were walked in user space, because a file had no "
                                 "unwind table in the kernel yet.")),
      left_(metrics.AddCounter("firewatch_deferred_stacks_left_total",
                               "Stacks without a table that were taken as they were: too many "
                               "waited already.")) {}

DeferredUnwinder::~DeferredUnwinder() = default;

const DeferredUnwinder::File& DeferredUnwinder::Ask(const ProcessMapping& mapping,
                                                    const Process& process) {
  File& file = files_[mapping.file];
  if (file.state != TableState::kAsked) return file;
  const auto table =
      symbolizer_.UnwindTableOf(mapping.file, static_cast<uint32_t>(process.pid),
                                static_cast<uint32_t>(process.parent), mapping.start, mapping.end);
  if (absl::IsUnavailable(table.status())) return file;
  file.state = TableState::kNone;
  if (!table.ok()) return file;
  file.state = TableState::kReady;
  file.table = static_cast<uint32_t>(tables_.size());
  tables_.push_back(*table);
  return file;
}

// The files that the walk will come to, before it does: the process may be gone by then, and with
// it the way to a deleted file. Whatever looks like a return address counts.
void DeferredUnwinder::AskForAll(const SampleRecord& sample, const Process& process) {
  const ProcessMapping* last = nullptr;
  for (size_t at = -sample.registers->start & 7; at + 8 <= sample.stack.size(); at += 8) {
    uint64_t word = 0;
    std::memcpy(&word, sample.stack.data() + at, sizeof(word));
    if (last != nullptr && word - last->start < last->end - last->start) continue;
    const ProcessMapping* mapping = process.mappings->Find(word);
    if (mapping == nullptr || mapping->anonymous) continue;
    last = mapping;
    if (static_cast<uint32_t>(mapping->file) < kFileIdLimit) Ask(*mapping, process);
  }
}

// False when a table is missing that may still come: that of `waits_for`; `out` then is as before.
bool DeferredUnwinder::Walk(const SampleRecord& sample, const Process& process, bool force,
                            SampleRecord* out, ProcessMapping* waits_for) {
  DeferredWalk context{.unwinder = this, .sample = &sample, .process = &process};
  walking = &context;
  walked_since_advance_ = true;
  fw_walk& walk = walker_->walk;
  walk.ip = sample.registers->ip;
  std::copy(std::begin(sample.registers->registers), std::end(sample.registers->registers),
            walk.registers);
  fw_walk_begin(&walk, 0, FW_MAX_USER_FRAMES);
  while ((force || context.blocked == nullptr) &&
         fw_walk_step(&walk, walker_->frames.data(), nullptr) == 0) {
  }
  walking = nullptr;
  if (context.blocked != nullptr && !force) {
    *waits_for = *context.blocked;
    return false;
  }
  *out = sample;
  auto end = static_cast<fw_stack_end>(walk.end);
  if (end == FW_STACK_END_BAD_READ && context.above_copy) end = FW_STACK_END_TRUNCATED;
  // What lies outside the copy, another stack or the code of a trampoline, only the kernel saw.
  const bool better = end == FW_STACK_END_ROOT || (sample.stack_end != FW_STACK_END_ROOT &&
                                                   walk.next >= sample.user_frames.size());
  if (better) {
    out->user_frames = {walker_->frames.data(), walk.next};
    out->stack_end = end;
  }
  return true;
}

bool DeferredUnwinder::Take(const SampleRecord& sample, const Process& process, size_t window,
                            Finished finished) {
  SampleRecord walked;
  ProcessMapping waits_for;
  if (Walk(sample, process, false, &walked, &waits_for)) {
    walked_.Add();
    finished(walked, process, window);
    return true;
  }
  if (kept_.size() >= limits_.samples || kept_bytes_ + sample.bytes.size() > limits_.bytes) {
    left_.Add();
    return false;
  }
  AskForAll(sample, process);
  auto kept = std::make_unique<Kept>();
  kept->words.resize((sample.bytes.size() + sizeof(fw_u64) - 1) / sizeof(fw_u64));
  std::memcpy(kept->words.data(), sample.bytes.data(), sample.bytes.size());
  const auto copy = ParseSample(std::as_bytes(std::span(kept->words)));
  if (!copy.ok()) return false;  // cannot be: it was parsed before
  kept->sample = *copy;
  kept->process = process;
  kept->window = window;
  kept->waits_for = waits_for;
  kept_bytes_ += sample.bytes.size();
  kept_.push_back(std::move(kept));
  return true;
}

void DeferredUnwinder::Drop(const Kept& kept) { kept_bytes_ -= kept.sample.bytes.size(); }

void DeferredUnwinder::Advance(Finished finished) {
  if (kept_.empty()) {
    ForgetTables();
    return;
  }
  // Called every few milliseconds while a file cannot be had, maybe for minutes: one question for
  // each file that is waited for, and no walk whose file has not come. The process of the last
  // sample is the one that most likely still lives.
  absl::flat_hash_map<symbolizer::FileId, TableState> states;
  for (auto kept = kept_.rbegin(); kept != kept_.rend(); ++kept) {
    const auto [state, is_new] = states.try_emplace((*kept)->waits_for.file);
    if (is_new) state->second = Ask((*kept)->waits_for, (*kept)->process).state;
  }
  std::erase_if(kept_, [&](const std::unique_ptr<Kept>& kept) {
    const auto state = states.find(kept->waits_for.file);
    if (state != states.end() && state->second == TableState::kAsked) return false;
    SampleRecord walked;
    if (!Walk(kept->sample, kept->process, false, &walked, &kept->waits_for)) return false;
    walked_.Add();
    finished(walked, kept->process, kept->window);
    Drop(*kept);
    return true;
  });
}

void DeferredUnwinder::Finish(size_t window, Finished finished) {
  std::erase_if(kept_, [&](const std::unique_ptr<Kept>& kept) {
    if (kept->window != window) return false;
    SampleRecord walked;
    Walk(kept->sample, kept->process, true, &walked, &kept->waits_for);
    walked_.Add();
    finished(walked, kept->process, kept->window);
    Drop(*kept);
    return true;
  });
}

void DeferredUnwinder::AddFiles(symbolizer::FileSet* kept) const {
  for (const auto& waiting : kept_) waiting->process.mappings->AddFiles(kept);
  for (const auto& [id, file] : files_) kept->Add(id);
}

size_t DeferredUnwinder::waiting(size_t window) const {
  return static_cast<size_t>(std::count_if(
      kept_.begin(), kept_.end(), [window](const auto& k) { return k->window == window; }));
}

// Nothing waits: by now the tables are in the kernel, and no further sample comes here.
void DeferredUnwinder::ForgetTables() {
  const bool in_use = std::exchange(walked_since_advance_, false);
  if (in_use) return;
  tables_.clear();
  files_.clear();
}

}  // namespace firewatch::agent
