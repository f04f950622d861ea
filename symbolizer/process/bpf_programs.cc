// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/process/bpf_programs.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include "base/unique_fd.h"

namespace firewatch::symbolizer {
namespace {

// What the kernel says is believed, but not with any amount of memory.
constexpr uint32_t kMaxFunctions = 4096;
constexpr int kMaxProgramsPerCall = 10'000;
// Functions that are gone are only noticed by what takes their place.
constexpr size_t kMaxKnown = 100'000;

struct BtfFree {
  void operator()(btf* types) const { ::btf__free(types); }
};

std::string Hex(const uint8_t* tag) {
  std::string out;
  for (size_t i = 0; i < BPF_TAG_SIZE; ++i) out += fmt::format("{:02x}", tag[i]);
  return out;
}

class SyscallReader final : public BpfProgramReader {
 public:
  std::vector<BpfFunction> ReadNew() override {
    std::vector<BpfFunction> out;
    for (int i = 0; i < kMaxProgramsPerCall; ++i) {
      uint32_t id = 0;
      if (::bpf_prog_get_next_id(last_id_, &id) != 0) break;  // no more, or no right to ask
      last_id_ = id;
      const base::UniqueFd program(::bpf_prog_get_fd_by_id(id));
      if (program.valid()) AddFunctions(program.get(), &out);  // else it went meanwhile
    }
    return out;
  }

 private:
  static void AddFunctions(int program, std::vector<BpfFunction>* out);

  uint32_t last_id_ = 0;
};

void SyscallReader::AddFunctions(int program, std::vector<BpfFunction>* out) {
  bpf_prog_info counts{};
  uint32_t size = sizeof(counts);
  if (::bpf_obj_get_info_by_fd(program, &counts, &size) != 0) return;
  const uint32_t functions = std::min(counts.nr_jited_ksyms, kMaxFunctions);
  if (functions == 0) return;  // interpreted
  std::vector<uint64_t> starts(functions);
  std::vector<uint32_t> lengths(functions);
  std::vector<std::array<uint8_t, BPF_TAG_SIZE>> tags(functions);
  std::vector<bpf_func_info> infos(std::min(counts.nr_func_info, functions));
  bpf_prog_info info{};
  info.jited_ksyms = reinterpret_cast<uintptr_t>(starts.data());
  info.nr_jited_ksyms = functions;
  info.jited_func_lens = reinterpret_cast<uintptr_t>(lengths.data());
  info.nr_jited_func_lens = functions;
  info.prog_tags = reinterpret_cast<uintptr_t>(tags.data());
  info.nr_prog_tags = functions;
  if (!infos.empty() && counts.func_info_rec_size == sizeof(bpf_func_info)) {
    info.func_info = reinterpret_cast<uintptr_t>(infos.data());
    info.nr_func_info = static_cast<uint32_t>(infos.size());
    info.func_info_rec_size = sizeof(bpf_func_info);
  } else {
    infos.clear();
  }
  size = sizeof(info);
  if (::bpf_obj_get_info_by_fd(program, &info, &size) != 0) return;
  const std::unique_ptr<btf, BtfFree> types(
      infos.empty() ? nullptr : ::btf__load_from_kernel_by_id(info.btf_id));
  for (uint32_t i = 0; i < functions && i < info.nr_jited_ksyms; ++i) {
    // 0: addresses are hidden from us (kptr_restrict).
    if (starts[i] == 0 || i >= info.nr_jited_func_lens || lengths[i] == 0) continue;
    std::string_view name = i == 0 ? std::string_view(info.name) : std::string_view("F");
    if (types != nullptr && i < infos.size()) {
      const btf_type* type = ::btf__type_by_id(types.get(), infos[i].type_id);
      const char* text =
          type == nullptr ? nullptr : ::btf__name_by_offset(types.get(), type->name_off);
      if (text != nullptr && *text != '\0') name = text;
    }
    const uint8_t* tag = i < info.nr_prog_tags ? tags[i].data() : info.tag;
    out->push_back({.start = starts[i],
                    .end = starts[i] + lengths[i],
                    .name = name.empty() ? fmt::format("bpf_prog_{}", Hex(tag))
                                         : fmt::format("bpf_prog_{}_{}", Hex(tag), name)});
  }
}

}  // namespace

std::unique_ptr<BpfProgramReader> BpfProgramReader::ForThisKernel() {
  return std::make_unique<SyscallReader>();
}

void BpfFunctions::Add(BpfFunction function) {
  if (function.start >= function.end) return;
  if (functions_.size() >= kMaxKnown) {
    while (!functions_.empty()) retired_.push_back(functions_.extract(functions_.begin()));
  }
  auto at = functions_.lower_bound(function.start);
  if (at != functions_.begin() && std::prev(at)->second.end > function.start) --at;
  while (at != functions_.end() && at->first < function.end) {
    retired_.push_back(functions_.extract(at++));
  }
  functions_.emplace(function.start, std::move(function));
}

const BpfFunction* BpfFunctions::At(uint64_t address) const {
  const auto after = functions_.upper_bound(address);
  if (after == functions_.begin()) return nullptr;
  const BpfFunction& function = std::prev(after)->second;
  return address < function.end ? &function : nullptr;
}

}  // namespace firewatch::symbolizer
