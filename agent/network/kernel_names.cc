// SPDX-License-Identifier: Apache-2.0
#include "agent/network/kernel_names.h"

#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <fstream>
#include <sstream>

#include "base/status.h"

namespace firewatch::agent {
namespace {

constexpr std::array<std::string_view, 8> kTracepoints = {
    "inet_sock_set_state", "tcp_destroy_sock",  "tcp_retransmit_skb", "tcp_retransmit_synack",
    "tcp_send_reset",      "tcp_receive_reset", "kfree_skb",          "tcp_bad_csum"};

struct BtfDeleter {
  void operator()(btf* types) const { btf__free(types); }
};

// The values of an enum, their common prefix left away.
std::map<uint32_t, std::string> EnumNames(const btf* types, const char* name,
                                          std::string_view prefix) {
  std::map<uint32_t, std::string> names;
  const int id = btf__find_by_name_kind(types, name, BTF_KIND_ENUM);
  if (id < 0) return names;
  const btf_type* type = btf__type_by_id(types, static_cast<uint32_t>(id));
  const struct btf_enum* values = btf_enum(type);
  for (int i = 0; i < btf_vlen(type); ++i) {
    std::string_view text = btf__name_by_offset(types, values[i].name_off);
    if (text.starts_with(prefix)) text.remove_prefix(prefix.size());
    names.emplace(static_cast<uint32_t>(values[i].val), text);
  }
  return names;
}

std::optional<uint32_t> CountArguments(const btf* types, std::string_view tracepoint) {
  const std::string name = fmt::format("btf_trace_{}", tracepoint);
  const int id = btf__find_by_name_kind(types, name.c_str(), BTF_KIND_TYPEDEF);
  if (id < 0) return std::nullopt;
  const btf_type* type = btf__type_by_id(types, static_cast<uint32_t>(id));
  type = btf__type_by_id(types, type->type);
  if (type == nullptr || !btf_is_ptr(type)) return std::nullopt;
  type = btf__type_by_id(types, type->type);
  if (type == nullptr || !btf_is_func_proto(type) || btf_vlen(type) == 0) return std::nullopt;
  return btf_vlen(type) - 1u;  // the first is the tracepoint's own
}

std::string NameOrNumber(const std::map<uint32_t, std::string>& names, uint32_t number) {
  const auto found = names.find(number);
  return found == names.end() ? fmt::format("{}", number) : found->second;
}

}  // namespace

absl::StatusOr<std::unique_ptr<KernelNames>> KernelNames::Load() {
  const std::unique_ptr<btf, BtfDeleter> types(btf__load_vmlinux_btf());
  if (types == nullptr || libbpf_get_error(types.get()) != 0) {
    return base::FailedPrecondition(
        "this kernel gives no type information in /sys/kernel/btf/vmlinux: "
        "CONFIG_DEBUG_INFO_BTF is needed");
  }
  std::unique_ptr<KernelNames> names(new KernelNames);
  for (const std::string_view tracepoint : kTracepoints) {
    if (const auto count = CountArguments(types.get(), tracepoint)) {
      names->tracepoints_.emplace(tracepoint, *count);
    }
  }
  names->drop_reasons_ = EnumNames(types.get(), "skb_drop_reason", "SKB_DROP_REASON_");
  names->reset_reasons_ = EnumNames(types.get(), "sk_rst_reason", "SK_RST_REASON_");
  return names;
}

std::optional<uint32_t> KernelNames::TracepointArguments(std::string_view name) const {
  const auto found = tracepoints_.find(name);
  if (found == tracepoints_.end()) return std::nullopt;
  return found->second;
}

std::string KernelNames::DropReason(uint32_t reason) const {
  return NameOrNumber(drop_reasons_, reason);
}

std::string KernelNames::ResetReason(uint32_t reason) const {
  return NameOrNumber(reset_reasons_, reason);
}

std::optional<uint32_t> KernelNames::FindDropReason(std::string_view name) const {
  for (const auto& [number, text] : drop_reasons_) {
    if (text == name) return number;
  }
  return std::nullopt;
}

std::string KernelNames::Function(uint64_t address) {
  std::ifstream file("/proc/kallsyms");
  uint64_t best = 0;
  std::string name = "unknown";
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    uint64_t start = 0;
    char kind = 0;
    std::string symbol;
    if (!(fields >> std::hex >> start >> kind >> symbol)) continue;
    if (kind != 't' && kind != 'T') continue;
    if (start <= address && start > best) {
      best = start;
      name = symbol;
    }
  }
  return name;
}

}  // namespace firewatch::agent
