// SPDX-License-Identifier: Apache-2.0
#include "agent/stacks/libunwind_ptrace.h"

#include <fmt/format.h>
#include <libunwind-ptrace.h>
#include <libunwind.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <utility>

#include "agent/stacks/eh_frame_header.h"
#include "agent/stacks/remote_memory.h"
#include "base/status.h"

// Exported by libunwind, used by libunwind-ptrace, in no public header.
extern "C" int _Ux86_64_dwarf_search_unwind_table(unw_addr_space_t space, unw_word_t ip,
                                                  unw_dyn_info_t* table, unw_proc_info_t* info,
                                                  int need_unwind_info, void* argument);

namespace firewatch::agent {
namespace {

// Where each mapped object begins in memory: the mapping of its file offset 0 stands before those
// of its code. Read once, and again after Flush.
class MappedObjects {
 public:
  explicit MappedObjects(pid_t pid) : pid_(pid) {}
  void Forget() { ranges_.clear(); }

  struct Range {
    uint64_t start = 0;
    uint64_t end = 0;
    uint64_t base = 0;
  };
  const Range* Find(uint64_t address) {
    if (ranges_.empty()) Read();
    const auto found = std::find_if(ranges_.begin(), ranges_.end(), [&](const Range& range) {
      return address - range.start < range.end - range.start;
    });
    return found == ranges_.end() ? nullptr : &*found;
  }

 private:
  void Read() {
    std::ifstream file(fmt::format("/proc/{}/maps", pid_));
    uint64_t base = 0;
    std::string base_name;
    for (std::string line; std::getline(file, line);) {
      unsigned long long start = 0;
      unsigned long long end = 0;
      unsigned long long offset = 0;
      char access[5] = "";
      int name_at = 0;
      if (std::sscanf(line.c_str(), "%llx-%llx %4s %llx %*s %*s%n", &start, &end, access, &offset,
                      &name_at) != 4) {
        continue;
      }
      const std::string name = line.substr(std::min(static_cast<size_t>(name_at), line.size()));
      if (offset == 0 && (name != base_name || base == 0)) {
        base = start;
        base_name = name;
      }
      if (access[2] == 'x' && name == base_name && !name.empty()) {
        ranges_.push_back({.start = start, .end = end, .base = base});
      }
    }
  }

  const pid_t pid_;
  std::vector<Range> ranges_;
};

// libunwind 1.6 caches 128 rules; a stack of a large program meets more.
constexpr size_t kCachedRules = 4096;

// The walk in progress on this thread. libunwind-ptrace calls our accessors with its own argument,
// so that there is no other way to find it.
struct CurrentWalk {
  const user_regs_struct* registers = nullptr;
  RemoteMemory* memory = nullptr;
  MappedObjects* objects = nullptr;
};
thread_local CurrentWalk current_walk;

int AccessMemory(unw_addr_space_t, unw_word_t address, unw_word_t* value, int write, void*) {
  if (write != 0 || current_walk.memory == nullptr) return -UNW_EINVAL;
  return current_walk.memory->Read(value, sizeof(*value), address) ? 0 : -UNW_EINVAL;
}

// libunwind-ptrace looks for the file; what it does not find is looked for in memory.
int FindProcedure(unw_addr_space_t space, unw_word_t ip, unw_proc_info_t* info, int need,
                  void* process) {
  const int found = _UPT_find_proc_info(space, ip, info, need, process);
  if (found >= 0 || current_walk.objects == nullptr) return found;
  const MappedObjects::Range* range = current_walk.objects->Find(ip);
  if (range == nullptr) return found;
  const auto header = FindEhFrameHeader(*current_walk.memory, range->base);
  if (!header) return found;
  unw_dyn_info_t table{};
  table.format = UNW_INFO_FORMAT_REMOTE_TABLE;
  table.start_ip = range->start;
  table.end_ip = range->end;
  table.u.rti.segbase = header->address;
  table.u.rti.table_data = header->table;
  table.u.rti.table_len = header->entries * 8 / sizeof(unw_word_t);
  return _Ux86_64_dwarf_search_unwind_table(space, ip, &table, info, need, process);
}

bool RegisterValue(const user_regs_struct& registers, unw_regnum_t number, unw_word_t* value) {
  switch (number) {
    case UNW_X86_64_RAX:
      return *value = registers.rax, true;
    case UNW_X86_64_RDX:
      return *value = registers.rdx, true;
    case UNW_X86_64_RCX:
      return *value = registers.rcx, true;
    case UNW_X86_64_RBX:
      return *value = registers.rbx, true;
    case UNW_X86_64_RSI:
      return *value = registers.rsi, true;
    case UNW_X86_64_RDI:
      return *value = registers.rdi, true;
    case UNW_X86_64_RBP:
      return *value = registers.rbp, true;
    case UNW_X86_64_RSP:
      return *value = registers.rsp, true;
    case UNW_X86_64_R8:
      return *value = registers.r8, true;
    case UNW_X86_64_R9:
      return *value = registers.r9, true;
    case UNW_X86_64_R10:
      return *value = registers.r10, true;
    case UNW_X86_64_R11:
      return *value = registers.r11, true;
    case UNW_X86_64_R12:
      return *value = registers.r12, true;
    case UNW_X86_64_R13:
      return *value = registers.r13, true;
    case UNW_X86_64_R14:
      return *value = registers.r14, true;
    case UNW_X86_64_R15:
      return *value = registers.r15, true;
    case UNW_X86_64_RIP:
      return *value = registers.rip, true;
    default:
      return false;
  }
}

int AccessRegister(unw_addr_space_t, unw_regnum_t number, unw_word_t* value, int write, void*) {
  if (write != 0 || current_walk.registers == nullptr) return -UNW_EBADREG;
  return RegisterValue(*current_walk.registers, number, value) ? 0 : -UNW_EBADREG;
}

int AccessFloat(unw_addr_space_t, unw_regnum_t, unw_fpreg_t*, int, void*) { return -UNW_EBADREG; }

// Code registered at run time by libunwind's own interface: libunwind-ptrace cannot find it either.
int DynamicInfo(unw_addr_space_t, unw_word_t*, void*) { return -UNW_ENOINFO; }

int Resume(unw_addr_space_t, unw_cursor_t*, void*) { return -UNW_EINVAL; }

int ProcedureName(unw_addr_space_t, unw_word_t, char*, size_t, unw_word_t*, void*) {
  return -UNW_ENOINFO;
}

unw_accessors_t Accessors() {
  unw_accessors_t accessors{};
  accessors.find_proc_info = FindProcedure;
  accessors.put_unwind_info = _UPT_put_unwind_info;
  accessors.get_dyn_info_list_addr = DynamicInfo;
  accessors.access_mem = AccessMemory;
  accessors.access_reg = AccessRegister;
  accessors.access_fpreg = AccessFloat;
  accessors.resume = Resume;
  accessors.get_proc_name = ProcedureName;
  return accessors;
}

}  // namespace

struct LibunwindPtrace::State {
  explicit State(pid_t pid) : memory(pid), objects(pid), accessors(Accessors()) {}
  ~State() {
    if (process != nullptr) _UPT_destroy(process);
    if (space != nullptr) unw_destroy_addr_space(space);
  }

  RemoteMemory memory;
  MappedObjects objects;
  unw_accessors_t accessors;  // the address space points to it
  unw_addr_space_t space = nullptr;
  void* process = nullptr;  // of libunwind-ptrace: finds the files
};

LibunwindPtrace::LibunwindPtrace(std::unique_ptr<State> state) : state_(std::move(state)) {}
LibunwindPtrace::~LibunwindPtrace() = default;

absl::StatusOr<std::unique_ptr<LibunwindPtrace>> LibunwindPtrace::Create(pid_t pid) {
  auto state = std::make_unique<State>(pid);
  state->space = unw_create_addr_space(&state->accessors, 0);
  state->process = _UPT_create(pid);
  if (state->space == nullptr || state->process == nullptr) {
    return base::ResourceExhausted("libunwind has no memory for process {}", pid);
  }
  unw_set_caching_policy(state->space, UNW_CACHE_GLOBAL);
  unw_set_cache_size(state->space, kCachedRules, 0);
  return std::unique_ptr<LibunwindPtrace>(new LibunwindPtrace(std::move(state)));
}

LibunwindEnd LibunwindPtrace::Walk(const user_regs_struct& registers,
                                   std::vector<WalkedFrame>* frames, size_t max_frames) {
  frames->clear();
  state_->memory.Forget();
  current_walk = {.registers = &registers, .memory = &state_->memory, .objects = &state_->objects};
  unw_cursor_t cursor;
  int result = unw_init_remote(&cursor, state_->space, state_->process);
  LibunwindEnd end = LibunwindEnd::kError;
  while (result >= 0) {
    if (frames->size() == max_frames) {
      end = LibunwindEnd::kTruncated;
      break;
    }
    unw_word_t ip = 0;
    unw_word_t sp = 0;
    if (unw_get_reg(&cursor, UNW_REG_IP, &ip) < 0 || unw_get_reg(&cursor, UNW_REG_SP, &sp) < 0) {
      break;
    }
    if (ip == 0) {  // what stands above a root that does not say so
      end = LibunwindEnd::kRoot;
      break;
    }
    // libunwind marks the frame above the trampoline: the one that it restored from a sigcontext.
    const bool interrupted = frames->empty() || unw_is_signal_frame(&cursor) > 0;
    frames->push_back({.ip = ip, .sp = sp, .interrupted = interrupted});
    result = unw_step(&cursor);
    if (result == 0) {
      end = LibunwindEnd::kRoot;
      break;
    }
  }
  current_walk = {};
  return end;
}

bool LibunwindPtrace::HasUnwindInfo(uint64_t ip) {
  current_walk = {.registers = nullptr, .memory = &state_->memory, .objects = &state_->objects};
  unw_proc_info_t info;
  std::memset(&info, 0, sizeof(info));
  const int result = FindProcedure(state_->space, ip, &info, 0, state_->process);
  current_walk = {};
  return result == 0;
}

void LibunwindPtrace::Flush() {
  unw_flush_cache(state_->space, 0, 0);
  // The file that it has open, too.
  const pid_t pid = state_->memory.pid();
  _UPT_destroy(std::exchange(state_->process, _UPT_create(pid)));
  state_->memory.Forget();
  state_->objects.Forget();
}

}  // namespace firewatch::agent
