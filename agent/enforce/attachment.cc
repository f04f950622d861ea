// SPDX-License-Identifier: Apache-2.0
#include "agent/enforce/attachment.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "agent/core/bpf_info.h"
#include "base/status.h"
#include "base/unique_fd.h"

namespace firewatch::agent {
namespace {

constexpr uint32_t kTcPriority = 1;
constexpr uint32_t kTcHandle = 0xf17e;
constexpr std::string_view kNames[] = {"auto", "native", "generic", "tc"};

std::string LinkPin(const std::string& directory) { return directory + "/link"; }
std::string TcPin(const std::string& directory) { return directory + "/tc"; }
// Stands for: the qdisc that the filter hangs on was made by us.
std::string QdiscPin(const std::string& directory) { return directory + "/tc_qdisc"; }

uint32_t ProgramId(int fd) {
  bpf_prog_info info{};
  uint32_t size = sizeof(info);
  return ::bpf_obj_get_info_by_fd(fd, &info, &size) == 0 ? info.id : 0;
}

std::string ProgramName(uint32_t id) {
  const base::UniqueFd fd(::bpf_prog_get_fd_by_id(id));
  bpf_prog_info info{};
  uint32_t size = sizeof(info);
  if (!fd.valid() || ::bpf_obj_get_info_by_fd(fd.get(), &info, &size) != 0) {
    return fmt::format("program {}", id);
  }
  return fmt::format("program {} \"{}\"", id, info.name);
}

// The ifindex that an XDP link is attached to; 0 when it is not (any more).
uint32_t LinkInterface(int fd, uint32_t* program = nullptr) {
  bpf_link_info info{};
  uint32_t size = sizeof(info);
  if (::bpf_obj_get_info_by_fd(fd, &info, &size) != 0 || info.type != BPF_LINK_TYPE_XDP) return 0;
  if (program != nullptr) *program = info.prog_id;
  return info.xdp.ifindex;
}

struct XdpState {
  uint32_t program = 0;
  AttachMode mode = AttachMode::kNative;
};
XdpState QueryXdp(uint32_t ifindex) {
  LIBBPF_OPTS(bpf_xdp_query_opts, options);
  XdpState out;
  if (::bpf_xdp_query(static_cast<int>(ifindex), 0, &options) != 0) return out;
  if (options.drv_prog_id != 0 || options.hw_prog_id != 0) {
    out.program = options.drv_prog_id != 0 ? options.drv_prog_id : options.hw_prog_id;
  } else if (options.skb_prog_id != 0) {
    out = {options.skb_prog_id, AttachMode::kGeneric};
  }
  return out;
}

// Takes the place of a foreign program: of one that netlink has attached, or the link of one.
absl::Status Evict(uint32_t ifindex, const XdpState& state) {
  const uint32_t flags =
      state.mode == AttachMode::kGeneric ? XDP_FLAGS_SKB_MODE : XDP_FLAGS_DRV_MODE;
  spdlog::warn("taking the place of {} on interface {}, as told", ProgramName(state.program),
               ifindex);
  for (uint32_t id = 0; ::bpf_link_get_next_id(id, &id) == 0;) {
    const base::UniqueFd link(::bpf_link_get_fd_by_id(id));
    if (!link.valid() || LinkInterface(link.get()) != ifindex) continue;
    if (::bpf_link_detach(link.get()) != 0)
      return base::ErrnoStatus(errno, "detach the other link");
  }
  if (QueryXdp(ifindex).program == 0) return absl::OkStatus();
  const int error = ::bpf_xdp_detach(static_cast<int>(ifindex), flags, nullptr);
  if (error != 0) return base::ErrnoStatus(-error, "detach the other program");
  return absl::OkStatus();
}

absl::Status AttachXdp(const FirewallProgram& program, uint32_t ifindex,
                       const std::string& directory, uint32_t flags) {
  LIBBPF_OPTS(bpf_link_create_opts, options, .flags = flags);
  const base::UniqueFd link(
      ::bpf_link_create(program.xdp_fd(), static_cast<int>(ifindex), BPF_XDP, &options));
  if (!link.valid()) return base::ErrnoStatus(errno, "attach");
  if (::bpf_obj_pin(link.get(), LinkPin(directory).c_str()) == 0) return absl::OkStatus();
  return base::ErrnoStatus(errno, "pin the link");
}

absl::Status AttachTc(const FirewallProgram& program, uint32_t ifindex,
                      const std::string& directory, bool again) {
  LibbpfLog log;
  LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = static_cast<int>(ifindex),
              .attach_point = BPF_TC_INGRESS);
  const int made = ::bpf_tc_hook_create(&hook);
  if (made != 0 && made != -EEXIST) return base::ErrnoStatus(-made, "make a clsact qdisc");
  LIBBPF_OPTS(bpf_tc_opts, options, .prog_fd = program.tc_fd(),
              .flags = again ? static_cast<uint32_t>(BPF_TC_F_REPLACE) : 0u, .handle = kTcHandle,
              .priority = kTcPriority);
  if (const int error = ::bpf_tc_attach(&hook, &options); error != 0) {
    if (error == -EEXIST) {
      return base::MakeStatus(absl::StatusCode::kAlreadyExists,
                              "a tc filter of somebody else has our place");
    }
    return base::ErrnoStatus(-error, "attach a tc filter");
  }
  ::unlink(TcPin(directory).c_str());
  if (::bpf_obj_pin(program.tc_fd(), TcPin(directory).c_str()) != 0) {
    return base::ErrnoStatus(errno, "pin the tc program");
  }
  if (made == 0) ::bpf_obj_pin(program.tc_fd(), QdiscPin(directory).c_str());
  return absl::OkStatus();
}

// The id of the program of our tc filter; 0: there is none.
uint32_t TcProgram(uint32_t ifindex) {
  LibbpfLog log;
  LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = static_cast<int>(ifindex),
              .attach_point = BPF_TC_INGRESS);
  LIBBPF_OPTS(bpf_tc_opts, options, .handle = kTcHandle, .priority = kTcPriority);
  return ::bpf_tc_query(&hook, &options) == 0 ? options.prog_id : 0;
}

bool TcIsOurs(uint32_t ifindex, const std::string& directory) {
  const base::UniqueFd pinned(::bpf_obj_get(TcPin(directory).c_str()));
  return pinned.valid() && TcProgram(ifindex) != 0 && TcProgram(ifindex) == ProgramId(pinned.get());
}

void AddWithLowers(const std::string& interface, std::set<std::string>* out) {
  if (!out->insert(interface).second) return;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator("/sys/class/net/" + interface, error)) {
    const std::string name = entry.path().filename();
    if (name.starts_with("lower_")) AddWithLowers(name.substr(6), out);
  }
  // A bridge's ports are below it, too; so are they in brif.
  for (const auto& entry :
       std::filesystem::directory_iterator("/sys/class/net/" + interface + "/brif", error)) {
    AddWithLowers(entry.path().filename(), out);
  }
}

}  // namespace

std::string_view AttachModeName(AttachMode mode) { return kNames[static_cast<size_t>(mode)]; }

absl::StatusOr<AttachMode> ParseAttachMode(std::string_view text) {
  for (size_t i = 0; i < std::size(kNames); ++i) {
    if (kNames[i] == text) return static_cast<AttachMode>(i);
  }
  return base::InvalidArgument("\"{}\" is none of auto, native, generic, tc", text);
}

absl::StatusOr<Attachment> AttachProgram(const FirewallProgram& program, uint32_t ifindex,
                                         const std::string& directory, AttachMode wanted,
                                         bool replace) {
  if (const XdpState other = QueryXdp(ifindex); other.program != 0 && wanted != AttachMode::kTc) {
    if (!replace) {
      return base::MakeStatus(
          absl::StatusCode::kAlreadyExists,
          fmt::format("{} is attached to the interface ({}); it is not put out unless told to",
                      ProgramName(other.program), AttachModeName(other.mode)));
    }
    RETURN_IF_ERROR(Evict(ifindex, other));
  }
  Attachment out;
  const auto attach = [&](AttachMode mode) {
    if (mode == AttachMode::kTc) return AttachTc(program, ifindex, directory, false);
    return AttachXdp(program, ifindex, directory,
                     mode == AttachMode::kNative ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE);
  };
  for (const AttachMode mode : {AttachMode::kNative, AttachMode::kGeneric, AttachMode::kTc}) {
    if (wanted != AttachMode::kAuto && wanted != mode) continue;
    const absl::Status status = attach(mode);
    if (status.ok()) {
      out.mode = mode;
      return out;
    }
    if (!out.note.empty()) out.note += "; ";
    out.note += fmt::format("{}: {}", AttachModeName(mode), base::Message(status));
    // Somebody was faster.
    if (QueryXdp(ifindex).program != 0 && mode != AttachMode::kTc) {
      return base::MakeStatus(absl::StatusCode::kAlreadyExists, out.note);
    }
  }
  return base::FailedPrecondition("the interface takes no program: {}", out.note);
}

absl::StatusOr<Attachment> TakeOver(const FirewallProgram& program, uint32_t ifindex,
                                    const std::string& directory) {
  const base::UniqueFd link(::bpf_obj_get(LinkPin(directory).c_str()));
  if (link.valid()) {
    if (LinkInterface(link.get()) != ifindex || ifindex == 0) {
      return base::NotFound("the interface that it was attached to is gone");
    }
    if (::bpf_link_update(link.get(), program.xdp_fd(), nullptr) != 0) {
      return base::ErrnoStatus(errno, "put this program in the place of the one before");
    }
    return Attachment{.mode = QueryXdp(ifindex).mode};
  }
  if (TcIsOurs(ifindex, directory)) {
    RETURN_IF_ERROR(AttachTc(program, ifindex, directory, true));
    return Attachment{.mode = AttachMode::kTc};
  }
  return base::NotFound("nothing is attached");
}

bool IsAttached(uint32_t ifindex, const std::string& directory) {
  if (ifindex == 0) return false;
  const base::UniqueFd link(::bpf_obj_get(LinkPin(directory).c_str()));
  if (link.valid()) return LinkInterface(link.get()) == ifindex;
  return TcIsOurs(ifindex, directory);
}

void ForgetAttachment(const std::string& directory) {
  for (const std::string& pin : {LinkPin(directory), TcPin(directory), QdiscPin(directory)}) {
    ::unlink(pin.c_str());
  }
}

void DetachAndUnpin(uint32_t ifindex, const std::string& directory) {
  if (const base::UniqueFd link(::bpf_obj_get(LinkPin(directory).c_str())); link.valid()) {
    // At once, whoever else has the link open.
    if (LinkInterface(link.get()) != 0 && ::bpf_link_detach(link.get()) != 0) {
      spdlog::warn("detach from interface {}: {}", ifindex, std::strerror(errno));
    }
  }
  if (TcIsOurs(ifindex, directory)) {
    LibbpfLog log;
    LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = static_cast<int>(ifindex),
                .attach_point = BPF_TC_INGRESS);
    LIBBPF_OPTS(bpf_tc_opts, options, .handle = kTcHandle, .priority = kTcPriority);
    if (const int error = ::bpf_tc_detach(&hook, &options); error != 0) {
      spdlog::warn("detach the tc filter from interface {}: {}", ifindex, std::strerror(-error));
    }
    if (::access(QdiscPin(directory).c_str(), F_OK) == 0) {
      // The whole qdisc, which we made; with attach_point alone libbpf would only flush it.
      hook.attach_point = static_cast<bpf_tc_attach_point>(BPF_TC_INGRESS | BPF_TC_EGRESS);
      ::bpf_tc_hook_destroy(&hook);
    }
  }
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    ::unlink(entry.path().c_str());
  }
  ::rmdir(directory.c_str());
}

bool CarriesDefaultRoute(const std::string& interface) {
  std::set<std::string> carriers;
  std::ifstream ipv4("/proc/thread-self/net/route");
  std::string line;
  std::getline(ipv4, line);  // the head of the table
  while (std::getline(ipv4, line)) {
    std::istringstream fields(line);
    std::string name, destination, gateway, flags, ref, use, metric, mask;
    if (fields >> name >> destination >> gateway >> flags >> ref >> use >> metric >> mask &&
        destination == "00000000" && mask == "00000000") {
      AddWithLowers(name, &carriers);
    }
  }
  std::ifstream ipv6("/proc/thread-self/net/ipv6_route");
  while (std::getline(ipv6, line)) {
    std::istringstream fields(line);
    std::string to, length, from, from_length, gateway, metric, ref, use, flags, name;
    // The kernel always has a reject route of its own on lo.
    if (fields >> to >> length >> from >> from_length >> gateway >> metric >> ref >> use >> flags >>
            name &&
        length == "00" && name != "lo") {
      AddWithLowers(name, &carriers);
    }
  }
  return carriers.contains(interface);
}

}  // namespace firewatch::agent
