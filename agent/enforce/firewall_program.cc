// SPDX-License-Identifier: Apache-2.0
#include "agent/enforce/firewall_program.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <spdlog/spdlog.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <deque>
#include <filesystem>
#include <utility>
#include <vector>

#include "agent/core/bpf_handles.h"
#include "agent/core/bpf_info.h"
#include "agent/enforce/swap_queue.h"
#include "base/status.h"
#include "bpf/enforce_xdp.skel.h"

#ifndef BPF_F_XDP_HAS_FRAGS  // linux/bpf.h since 5.18
#define BPF_F_XDP_HAS_FRAGS (1U << 5)
#endif

namespace firewatch::agent {
namespace {

class LoadedProgram final : public FirewallProgram {
 public:
  LoadedProgram(BpfSkeleton<enforce_xdp_bpf> skeleton,
                std::vector<std::pair<std::string, uint32_t>> verified)
      : skeleton_(std::move(skeleton)), verified_(std::move(verified)), swaps_(generations_fd()) {
    cpu_count_ = static_cast<size_t>(std::max(::libbpf_num_possible_cpus(), 1));
  }

  int xdp_fd() const override {
    const int fd = ::bpf_program__fd(skeleton_->progs.on_xdp_buff);
    return fd >= 0 ? fd : ::bpf_program__fd(skeleton_->progs.on_xdp);
  }
  int tc_fd() const override { return ::bpf_program__fd(skeleton_->progs.on_tc); }
  int bench_judge_fd() const override { return ::bpf_program__fd(skeleton_->progs.bench_judge); }
  int bench_parse_fd() const override { return ::bpf_program__fd(skeleton_->progs.bench_parse); }
  int bench_sources_fd() const override { return ::bpf_map__fd(skeleton_->maps.bench_sources); }
  int events_fd() const override { return ::bpf_map__fd(skeleton_->maps.drop_events); }

  int generations_fd() const override { return ::bpf_map__fd(skeleton_->maps.generations); }

  absl::Status Put(uint32_t key, ImageMap* image) override {
    if (image->rest_fd() >= 0 && image->header().rest == 0) RETURN_IF_ERROR(PutRest(image));
    const int fd = image->fd();
    if (::bpf_map_update_elem(generations_fd(), &key, &fd, BPF_ANY) != 0) {
      return base::ErrnoStatus(errno, "put the rules in force");
    }
    return RemoveUnusedRests();
  }
  absl::StatusOr<uint64_t> PutSoon(ImageMap* image) override {
    bool has_rests = image->rest_fd() >= 0;
    for (uint32_t place = 0; place < FW_IMAGE_RESTS; ++place) has_rests |= HasRest(place);
    if (!has_rests) return swaps_.Swap(0, image->fd());
    // The slabs of the old go only once no packet reads them.
    RETURN_IF_ERROR(Put(0, image));
    swaps_.WaitForAll();
    return swaps_.DoneThrough();
  }
  uint64_t SwapsDone() const override { return swaps_.DoneThrough(); }
  void WaitForSwaps() override { swaps_.WaitForAll(); }
  absl::Status Remove(uint32_t key) override {
    // Kernels wait for packets also when there was nothing.
    uint32_t id = 0;
    if (::bpf_map_lookup_elem(generations_fd(), &key, &id) != 0 && errno == ENOENT) {
      return absl::OkStatus();
    }
    if (::bpf_map_delete_elem(generations_fd(), &key) != 0 && errno != ENOENT) {
      return base::ErrnoStatus(errno, "remove a generation of rules");
    }
    return RemoveUnusedRests();
  }
  absl::StatusOr<ImageMap> Find(uint32_t key) const override {
    return ImageMap::Find(generations_fd(), rests_fd(), key);
  }

  fw_rule_counts RuleCounts(uint32_t slot) const override {
    std::vector<fw_rule_counts> values(cpu_count_);
    fw_rule_counts sum{};
    const int fd = ::bpf_map__fd(skeleton_->maps.rule_counts);
    if (::bpf_map_lookup_elem(fd, &slot, values.data()) != 0) return sum;
    for (const fw_rule_counts& value : values) {
      sum.packets += value.packets;
      sum.bytes += value.bytes;
      sum.dropped_packets += value.dropped_packets;
      sum.dropped_bytes += value.dropped_bytes;
      sum.would_drop_packets += value.would_drop_packets;
      sum.would_drop_bytes += value.would_drop_bytes;
      sum.sampled += value.sampled;
    }
    return sum;
  }
  absl::Status ClearRuleCounts(uint32_t slot) override {
    const std::vector<fw_rule_counts> zeros(cpu_count_);
    const int fd = ::bpf_map__fd(skeleton_->maps.rule_counts);
    if (::bpf_map_update_elem(fd, &slot, zeros.data(), BPF_ANY) == 0) return absl::OkStatus();
    return base::ErrnoStatus(errno, "clear the counters of a rule");
  }
  FirewallCounts Counts() const override {
    const bpf_map* map = skeleton_->maps.cpus;
    const size_t value_size = (::bpf_map__value_size(map) + 7) / 8 * 8;
    std::vector<uint8_t> values(value_size * cpu_count_);
    FirewallCounts sum{};
    const uint32_t zero = 0;
    if (::bpf_map_lookup_elem(::bpf_map__fd(map), &zero, values.data()) != 0) return sum;
    for (size_t cpu = 0; cpu < cpu_count_; ++cpu) {
      uint64_t counts[FW_FIREWALL_COUNT];  // what struct fw_cpu begins with
      std::memcpy(counts, values.data() + cpu * value_size, sizeof(counts));
      for (size_t i = 0; i < FW_FIREWALL_COUNT; ++i) sum[i] += counts[i];
    }
    return sum;
  }

  uint64_t map_bytes() const override { return ReadMapBytes(skeleton_->obj); }
  uint64_t run_time_ns() const override {
    uint64_t sum = 0;
    for (const BpfProgramStats& stats : ReadProgramStats(skeleton_->obj)) sum += stats.run_time_ns;
    return sum;
  }
  const std::vector<std::pair<std::string, uint32_t>>& verified_instructions() const override {
    return verified_;
  }

 private:
  int rests_fd() const { return ::bpf_map__fd(skeleton_->maps.image_rests); }
  bool HasRest(uint32_t place) const {
    uint32_t id = 0;
    return ::bpf_map_lookup_elem(rests_fd(), &place, &id) == 0;
  }
  absl::Status PutRest(ImageMap* image) {
    uint32_t place = 0;
    while (place < FW_IMAGE_RESTS && HasRest(place)) ++place;
    if (place == FW_IMAGE_RESTS) return base::Internal("no place for the slabs of the rules");
    const int fd = image->rest_fd();
    if (::bpf_map_update_elem(rests_fd(), &place, &fd, BPF_ANY) != 0) {
      return base::ErrnoStatus(errno, "put the slabs of the rules");
    }
    image->SetRest(place + 1);
    return absl::OkStatus();
  }
  // Those of images that are in force no more, also by an agent that died before it came to this.
  absl::Status RemoveUnusedRests() {
    std::optional<std::array<bool, FW_IMAGE_RESTS>> used;
    for (uint32_t place = 0; place < FW_IMAGE_RESTS; ++place) {
      if (!HasRest(place)) continue;  // nearly always all: each wait for the kernel counts
      if (!used) {
        used.emplace();
        for (const uint32_t key : {0u, 1u}) {
          const auto image = Find(key);
          if (!image.ok() && !absl::IsNotFound(image.status())) return image.status();
          const uint32_t rest = image.ok() ? image->header().rest : 0;
          if (rest > 0 && rest <= FW_IMAGE_RESTS) (*used)[rest - 1] = true;
        }
      }
      if (!(*used)[place] && ::bpf_map_delete_elem(rests_fd(), &place) != 0) {
        return base::ErrnoStatus(errno, "remove the slabs of rules before");
      }
    }
    return absl::OkStatus();
  }

  const BpfSkeleton<enforce_xdp_bpf> skeleton_;
  const std::vector<std::pair<std::string, uint32_t>> verified_;
  size_t cpu_count_ = 1;
  SwapQueue swaps_;
};

std::vector<bpf_map*> PinnedMaps(enforce_xdp_bpf* skeleton) {
  return {skeleton->maps.generations, skeleton->maps.image_rests,  skeleton->maps.rule_counts,
          skeleton->maps.cpus,        skeleton->maps.rule_buckets, skeleton->maps.source_buckets,
          skeleton->maps.drop_events};
}

// What the verifier says of each program: why it refuses one, and what it has counted (which
// kernels before 5.16 tell nowhere else). With statistics alone it does not tell its whole way
// there, which would be megabytes.
class VerifierLogs {
 public:
  explicit VerifierLogs(const bpf_object* object) {
    constexpr uint32_t kStatistics = 4;  // BPF_LOG_STATS, since Linux 5.2
    bpf_program* program = nullptr;
    bpf_object__for_each_program(program, object) {
      if (!::bpf_program__autoload(program)) continue;
      auto& [name, text] = logs_.emplace_back(::bpf_program__name(program), kLogBytes);
      ::bpf_program__set_log_level(program, kStatistics);
      ::bpf_program__set_log_buf(program, text.data(), text.size());
    }
  }
  std::vector<std::pair<std::string, uint32_t>> Counts() const {
    std::vector<std::pair<std::string, uint32_t>> out;
    for (const auto& [name, text] : logs_) {
      const char* processed = std::strstr(text.data(), "processed ");
      unsigned count = 0;
      if (processed != nullptr && std::sscanf(processed, "processed %u insns", &count) == 1) {
        out.emplace_back(name, count);
      }
    }
    return out;
  }
  // "on_xdp: …", of the last program that it looked at; "" when it came to none.
  std::string Last() const {
    std::string out;
    for (const auto& [name, text] : logs_) {
      if (text[0] != 0) out = fmt::format("{}: {}", name, text.data());
    }
    std::replace(out.begin(), out.end(), '\n', ' ');
    return out;
  }

 private:
  static constexpr size_t kLogBytes = size_t{64} << 10;
  std::deque<std::pair<std::string, std::vector<char>>> logs_;
};

// Whether programs may read the kernel's own struct of a frame.
bool KernelCastsContexts() {
  const std::unique_ptr<btf, decltype(&::btf__free)> kernel(::btf__load_vmlinux_btf(),
                                                            &::btf__free);
  return kernel != nullptr &&
         ::btf__find_by_name_kind(kernel.get(), "bpf_cast_to_kern_ctx", BTF_KIND_FUNC) > 0;
}

}  // namespace

absl::Status MakePinDirectory(const std::string& directory) {
  constexpr const char* kUsual = "/sys/fs/bpf";
  struct statfs info{};
  if (directory.starts_with(kUsual) &&
      (::statfs(kUsual, &info) != 0 || static_cast<uint64_t>(info.f_type) != BPF_FS_MAGIC)) {
    if (::mount("bpf", kUsual, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") != 0) {
      return base::Annotate(base::ErrnoStatus(errno, "mount"),
                            "no BPF file system at /sys/fs/bpf, which rules are kept in");
    }
    spdlog::info("mounted a BPF file system at {}", kUsual);
  }
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) return base::ErrnoStatus(error.value(), fmt::format("make {}", directory));
  if (::statfs(directory.c_str(), &info) != 0 ||
      static_cast<uint64_t>(info.f_type) != BPF_FS_MAGIC) {
    return base::FailedPrecondition("{} is not on a BPF file system", directory);
  }
  return absl::OkStatus();
}

namespace {

absl::StatusOr<std::unique_ptr<FirewallProgram>> LoadPrograms(const std::string& directory,
                                                              bool benchmarks, bool casts) {
  LibbpfLog log;
  BpfSkeleton<enforce_xdp_bpf> skeleton(enforce_xdp_bpf::open());
  if (skeleton == nullptr) return base::ErrnoStatus(errno, "open the firewall's BPF object");
  ::bpf_program__set_autoload(skeleton->progs.on_xdp, !casts);
  ::bpf_program__set_autoload(skeleton->progs.on_xdp_buff, casts);
  ::bpf_program__set_autoload(skeleton->progs.bench_judge, benchmarks);
  ::bpf_program__set_autoload(skeleton->progs.bench_parse, benchmarks);
  ::bpf_map__set_autocreate(skeleton->maps.bench_sources, benchmarks);
  // Frames of more than one page need a flag that kernels before 5.18 refuse, as they lack the
  // helper that tells their length.
  if (::libbpf_probe_bpf_helper(BPF_PROG_TYPE_XDP, BPF_FUNC_xdp_get_buff_len, nullptr) == 1) {
    skeleton->rodata->kernel_has_frags = 1;
    for (bpf_program* program : {skeleton->progs.on_xdp, skeleton->progs.on_xdp_buff}) {
      ::bpf_program__set_flags(program, BPF_F_XDP_HAS_FRAGS);
    }
  }
  if (!directory.empty()) {
    for (bpf_map* map : PinnedMaps(skeleton.get())) {
      const std::string path = fmt::format("{}/{}", directory, ::bpf_map__name(map));
      if (::bpf_map__set_pin_path(map, path.c_str()) != 0) return base::ErrnoStatus(errno, path);
    }
  }
  const VerifierLogs verifier(skeleton->obj);
  if (const int error = enforce_xdp_bpf::load(skeleton.get()); error != 0) {
    if (log.warnings().find("parameter mismatch") != std::string::npos) {
      return base::FailedPrecondition("{} holds the maps of another version", directory);
    }
    return base::Annotate(
        base::ErrnoStatus(-error, "load the firewall's BPF programs"),
        verifier.Last().empty() ? log.warnings().substr(0, 2000) : verifier.Last().substr(0, 2000));
  }
  return std::make_unique<LoadedProgram>(std::move(skeleton), verifier.Counts());
}

}  // namespace

absl::StatusOr<std::unique_ptr<FirewallProgram>> FirewallProgram::Load(const std::string& directory,
                                                                       bool benchmarks) {
  if (KernelCastsContexts()) {
    auto program = LoadPrograms(directory, benchmarks, /*casts=*/true);
    if (program.ok() || absl::IsFailedPrecondition(program.status())) return program;
    spdlog::debug("{}; once more, with a call for the length of frames",
                  base::Message(program.status()));
  }
  if (benchmarks) return base::FailedPrecondition("benchmarks need Linux 6.2");
  return LoadPrograms(directory, benchmarks, /*casts=*/false);
}

}  // namespace firewatch::agent
