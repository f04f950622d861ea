// SPDX-License-Identifier: Apache-2.0
// libunwind's remote interface: one address space per process, which caches the rule of each
// address that it has met; accessors that answer from the copies.
#include "agent/cpu/fallback_unwinder.h"

#include <libunwind.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "agent/cpu/fallback_image.h"
#include "base/check.h"

// Exported by libunwind, declared in none of its public headers: looks an address up in a search
// table of the target and fills in `info` from the FDE that it finds there.
extern "C" int UNW_OBJ(dwarf_search_unwind_table)(unw_addr_space_t space, unw_word_t ip,
                                                  unw_dyn_info_t* table, unw_proc_info_t* info,
                                                  int need_unwind_info, void* argument);

namespace firewatch::agent {
namespace {

constexpr size_t kMaxChunks = 4096;     // of 4 KiB: 16 MiB
constexpr size_t kRulesPerSpace = 512;  // about 200 bytes each

// A file where this process has mapped it. Without an image: tried, and could not be read.
struct PlacedImage {
  uint64_t mapping_start = 0;
  uint64_t mapping_end = 0;
  uint64_t low = 0;
  uint64_t high = 0;
  uint64_t bias = 0;
  std::shared_ptr<FileImage> image;
};

struct Space {
  explicit Space(unw_accessors_t* accessors) : handle(unw_create_addr_space(accessors, 0)) {
    CHECK(handle != nullptr);
    unw_set_caching_policy(handle, UNW_CACHE_GLOBAL);
    unw_set_cache_size(handle, kRulesPerSpace, 0);
  }
  ~Space() { unw_destroy_addr_space(handle); }
  Space(const Space&) = delete;
  Space& operator=(const Space&) = delete;

  const unw_addr_space_t handle;
  std::shared_ptr<const MappingSet> mappings;
  std::vector<PlacedImage> images;
  size_t last_image = 0;
  uint64_t last_used = 0;
};

// What the accessors know during one Unwind.
struct Walk {
  StackUnwinder* owner = nullptr;
  Space* space = nullptr;
  const ThreadState* thread = nullptr;
  const Process* process = nullptr;
  fw_stack_end no_rule = FW_STACK_END_NONE;  // of this step: why there is no CFI
  bool read_failed = false;                  // of this step
  uint64_t failed_address = 0;
  bool met_unmapped = false;  // of this walk
};

}  // namespace

struct StackUnwinder::Impl {
  explicit Impl(symbolizer::Symbolizer& given) : symbolizer(given) {}

  Space& SpaceOf(const Process& process);
  PlacedImage& ImageOf(Walk& walk, const ProcessMapping& mapping);
  std::shared_ptr<FileImage> Open(const Process& process, const ProcessMapping& mapping);
  void KeepBounds();

  static int FindProcInfo(unw_addr_space_t, unw_word_t, unw_proc_info_t*, int, void*);
  static int AccessMemory(unw_addr_space_t, unw_word_t, unw_word_t*, int, void*);
  static int AccessRegister(unw_addr_space_t, unw_regnum_t, unw_word_t*, int, void*);
  static bool ReadFile(Walk& walk, uint64_t address, uint64_t* word);

  symbolizer::Symbolizer& symbolizer;
  unw_accessors_t accessors{};
  absl::flat_hash_map<uint64_t, std::unique_ptr<Space>> spaces;  // by incarnation
  absl::flat_hash_map<symbolizer::FileId, std::shared_ptr<FileImage>> images;
  uint64_t now = 0;  // counts calls: the order of uses
  Walk walk;
};

// ---- what libunwind asks
// --------------------------------------------------------------------------

bool StackUnwinder::Impl::ReadFile(Walk& walk, uint64_t address, uint64_t* word) {
  Space& space = *walk.space;
  const auto try_image = [&](size_t i) {
    PlacedImage& placed = space.images[i];
    return address >= placed.low && address < placed.high && placed.image != nullptr &&
           placed.image->ReadWord(address - placed.bias, word);
  };
  if (space.last_image < space.images.size() && try_image(space.last_image)) return true;
  for (size_t i = 0; i < space.images.size(); ++i) {
    if (try_image(i)) {
      space.last_image = i;
      return true;
    }
  }
  return false;
}

int StackUnwinder::Impl::AccessMemory(unw_addr_space_t, unw_word_t address, unw_word_t* value,
                                      int write, void* argument) {
  Walk& walk = *static_cast<Walk*>(argument);
  if (write != 0) return -UNW_EINVAL;
  const ThreadState& thread = *walk.thread;
  const uint64_t into = address - thread.stack_start;
  if (into < thread.stack.size() && thread.stack.size() - into >= sizeof(*value)) {
    std::memcpy(value, thread.stack.data() + into, sizeof(*value));
    return 0;
  }
  uint64_t word = 0;
  if (ReadFile(walk, address, &word)) {
    *value = word;
    return 0;
  }
  walk.read_failed = true;
  walk.failed_address = address;
  return -UNW_EINVAL;
}

int StackUnwinder::Impl::AccessRegister(unw_addr_space_t, unw_regnum_t number, unw_word_t* value,
                                        int write, void* argument) {
  const Walk& walk = *static_cast<Walk*>(argument);
  if (write != 0) return -UNW_EREADONLYREG;
  if (number < 0 || static_cast<size_t>(number) >= walk.thread->registers.size()) {
    return -UNW_EBADREG;
  }
  *value = walk.thread->registers[static_cast<size_t>(number)];
  return 0;
}

int StackUnwinder::Impl::FindProcInfo(unw_addr_space_t handle, unw_word_t ip, unw_proc_info_t* info,
                                      int need_unwind_info, void* argument) {
  Walk& walk = *static_cast<Walk*>(argument);
  const ProcessMapping* mapping = walk.process->mappings->Find(ip);
  if (mapping == nullptr) walk.met_unmapped = true;
  if (mapping == nullptr || mapping->anonymous) {
    walk.no_rule = FW_STACK_END_NO_MAPPING;
    return -UNW_ENOINFO;
  }
  const PlacedImage& placed = walk.owner->impl_->ImageOf(walk, *mapping);
  if (placed.image == nullptr || !placed.image->search_table()) {
    walk.no_rule = FW_STACK_END_NO_TABLE;
    return -UNW_ENOINFO;
  }
  const FileImage::SearchTable& table = *placed.image->search_table();
  unw_dyn_info_t search{};
  search.format = UNW_INFO_FORMAT_REMOTE_TABLE;
  search.start_ip = mapping->start;
  search.end_ip = mapping->end;
  search.u.rti.segbase = table.header + placed.bias;
  search.u.rti.table_data = table.entries + placed.bias;
  search.u.rti.table_len = table.count;  // an entry is as long as a word
  const int result =
      UNW_OBJ(dwarf_search_unwind_table)(handle, ip, &search, info, need_unwind_info, argument);
  if (result < 0) walk.no_rule = FW_STACK_END_NO_RULE;
  // Whatever was wrong with the CFI: libunwind then tries what does without (frame pointer).
  return result < 0 ? -UNW_ENOINFO : 0;
}

// ---- processes and their files
// --------------------------------------------------------------------

std::shared_ptr<FileImage> StackUnwinder::Impl::Open(const Process& process,
                                                     const ProcessMapping& mapping) {
  if (const auto known = images.find(mapping.file); known != images.end()) return known->second;
  auto fd = symbolizer.OpenFile(mapping.file, static_cast<uint32_t>(process.pid),
                                static_cast<uint32_t>(process.parent), mapping.start, mapping.end);
  // Not remembered: another process may have the rights, or still live.
  if (!fd.ok()) return nullptr;
  auto image = FileImage::Open(*std::move(fd));
  if (!image.ok()) return nullptr;
  images.emplace(mapping.file, *image);
  return *image;
}

PlacedImage& StackUnwinder::Impl::ImageOf(Walk& given, const ProcessMapping& mapping) {
  std::vector<PlacedImage>& placed = given.space->images;
  const auto known = std::find_if(placed.begin(), placed.end(), [&](const PlacedImage& one) {
    return one.mapping_start == mapping.start && one.mapping_end == mapping.end;
  });
  if (known != placed.end()) return *known;
  PlacedImage fresh{.mapping_start = mapping.start, .mapping_end = mapping.end};
  fresh.image = Open(*given.process, mapping);
  if (fresh.image != nullptr) {
    if (const auto vaddr = fresh.image->VaddrOfMapping(mapping.file_offset)) {
      fresh.bias = mapping.start - *vaddr;
      fresh.low = fresh.image->low() + fresh.bias;
      fresh.high = fresh.image->high() + fresh.bias;
    } else {
      fresh.image = nullptr;
    }
  }
  placed.push_back(std::move(fresh));
  return placed.back();
}

Space& StackUnwinder::Impl::SpaceOf(const Process& process) {
  std::unique_ptr<Space>& space = spaces[process.incarnation];
  if (space == nullptr) space = std::make_unique<Space>(&accessors);
  if (space->mappings != process.mappings) {
    unw_flush_cache(space->handle, 0, 0);
    space->images.clear();
    space->mappings = process.mappings;
  }
  space->last_used = ++now;
  return *space;
}

void StackUnwinder::Impl::KeepBounds() {
  if (spaces.size() > kMaxSpaces) {
    const auto oldest = std::min_element(
        spaces.begin(), spaces.end(),
        [](const auto& a, const auto& b) { return a.second->last_used < b.second->last_used; });
    spaces.erase(oldest);
  }
  // Rare (many different files at once), so the simple way: start again.
  if (images.size() > kMaxImages) {
    spaces.clear();
    images.clear();
  }
  size_t chunks = 0;
  for (const auto& [file, image] : images) chunks += image->chunk_count();
  if (chunks > kMaxChunks) {
    for (const auto& [file, image] : images) image->DropChunks();
  }
}

// ---- the walk
// ------------------------------------------------------------------------------------

namespace {

fw_stack_end WhyStopped(const Walk& walk, int error) {
  if (walk.read_failed) {
    const ThreadState& thread = *walk.thread;
    const bool above = walk.failed_address >= thread.stack_start + thread.stack.size();
    return above && thread.stack_goes_on ? FW_STACK_END_TRUNCATED : FW_STACK_END_BAD_READ;
  }
  if (error == -UNW_EBADFRAME) return FW_STACK_END_NOT_ADVANCING;
  return walk.no_rule != FW_STACK_END_NONE ? walk.no_rule : FW_STACK_END_NO_RULE;
}

}  // namespace

StackUnwinder::StackUnwinder(symbolizer::Symbolizer& symbolizer)
    : impl_(std::make_unique<Impl>(symbolizer)) {
  unw_accessors_t& accessors = impl_->accessors;
  accessors.find_proc_info = Impl::FindProcInfo;
  accessors.put_unwind_info = [](unw_addr_space_t, unw_proc_info_t*, void*) {};
  accessors.get_dyn_info_list_addr = [](unw_addr_space_t, unw_word_t*, void*) {
    return -UNW_ENOINFO;
  };
  accessors.access_mem = Impl::AccessMemory;
  accessors.access_reg = Impl::AccessRegister;
  accessors.access_fpreg = [](unw_addr_space_t, unw_regnum_t, unw_fpreg_t*, int, void*) {
    return -UNW_EINVAL;
  };
  accessors.resume = [](unw_addr_space_t, unw_cursor_t*, void*) { return -UNW_EINVAL; };
  accessors.get_proc_name = [](unw_addr_space_t, unw_word_t, char*, size_t, unw_word_t*, void*) {
    return -UNW_EUNSPEC;
  };
}

StackUnwinder::~StackUnwinder() = default;

fw_stack_end StackUnwinder::Unwind(const Process& process, const ThreadState& thread,
                                   std::vector<fw_u64>& frames) {
  const size_t first = frames.size();
  frames.push_back(thread.registers[ThreadState::kRip] & FW_FRAME_PAYLOAD_MASK);
  impl_->KeepBounds();
  Walk& walk = impl_->walk;
  walk = {.owner = this, .space = &impl_->SpaceOf(process), .thread = &thread, .process = &process};
  unw_cursor_t cursor;
  if (unw_init_remote(&cursor, walk.space->handle, &walk) != 0) return FW_STACK_END_NO_REGISTERS;
  uint64_t sp = thread.registers[FW_REGISTER_RSP];
  for (;;) {
    const bool signal_frame = unw_is_signal_frame(&cursor) > 0;
    walk.no_rule = FW_STACK_END_NONE;
    walk.read_failed = false;
    const int result = unw_step(&cursor);
    if (result < 0) return WhyStopped(walk, result);
    unw_word_t ip = 0;
    unw_word_t next_sp = 0;
    unw_get_reg(&cursor, UNW_REG_IP, &ip);
    unw_get_reg(&cursor, UNW_REG_SP, &next_sp);
    const bool guessed = walk.no_rule != FW_STACK_END_NONE;  // by frame pointer, for want of CFI
    if (result == 0 || ip == 0) {
      return guessed ? FW_STACK_END_FRAME_POINTER : FW_STACK_END_ROOT;
    }
    // Above is what says the kind of a frame: garbage from a broken stack must not look like one.
    if (ip > FW_FRAME_PAYLOAD_MASK) return FW_STACK_END_NO_MAPPING;
    if (guessed && process.mappings->Find(ip) == nullptr) return walk.no_rule;
    // Only the way out of a signal handler may lead to another stack.
    if (!signal_frame && next_sp <= sp) return FW_STACK_END_NOT_ADVANCING;
    if (frames.size() - first == FW_MAX_USER_FRAMES) return FW_STACK_END_TRUNCATED;
    frames.push_back(signal_frame ? ip : ip - 1);
    sp = next_sp;
  }
}

bool StackUnwinder::met_unmapped() const { return impl_->walk.met_unmapped; }

void StackUnwinder::AddFiles(symbolizer::FileSet* kept) const {
  for (const auto& [file, image] : impl_->images) kept->Add(file);
}

size_t StackUnwinder::cached_bytes() const {
  size_t chunks = 0;
  for (const auto& [file, image] : impl_->images) chunks += image->chunk_count();
  return chunks * FileImage::kChunkBytes;
}

}  // namespace firewatch::agent
