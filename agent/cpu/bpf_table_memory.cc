// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/bpf_table_memory.h"

#include <bpf/bpf.h>
#include <spdlog/spdlog.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <utility>

#include "agent/core/bpf_info.h"
#include "base/status.h"

namespace firewatch::agent {

absl::StatusOr<std::unique_ptr<BpfTableMemory>> BpfTableMemory::Open(const Maps& maps) {
  bpf_map_info info{};
  uint32_t info_size = sizeof(info);
  if (bpf_obj_get_info_by_fd(maps.tables, &info, &info_size) != 0) {
    return base::ErrnoStatus(errno, "bpf: map of unwind tables");
  }
  if (info.value_size != sizeof(fw_table)) {
    return base::InvalidArgument("map of unwind tables: values of {} bytes", info.value_size);
  }
  void* mapped = ::mmap(nullptr, size_t{info.max_entries} * sizeof(fw_table),
                        PROT_READ | PROT_WRITE, MAP_SHARED, maps.tables, 0);
  if (mapped == MAP_FAILED) return base::ErrnoStatus(errno, "mmap the map of unwind tables");
  return std::unique_ptr<BpfTableMemory>(
      new BpfTableMemory(maps, {static_cast<fw_table*>(mapped), info.max_entries}));
}

// The slabs stay in their array of maps until that goes, and no program is cut short.
BpfTableMemory::~BpfTableMemory() {
  for (const auto& [slab, mapped] : slabs_) ::munmap(mapped.bytes, FW_SLAB_BYTES);
  ::munmap(tables_.data(), tables_.size_bytes());
}

absl::Status BpfTableMemory::AddSlab(uint32_t slab) {
  bpf_map_create_opts options{};
  options.sz = sizeof(options);
  options.map_flags = BPF_F_MMAPABLE;
  MappedSlab made;
  made.fd.Reset(
      bpf_map_create(BPF_MAP_TYPE_ARRAY, "slab", sizeof(uint32_t), FW_SLAB_BYTES, 1, &options));
  if (!made.fd.valid()) return base::ErrnoStatus(errno, "bpf: make a slab");
  void* mapped =
      ::mmap(nullptr, FW_SLAB_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, made.fd.get(), 0);
  if (mapped == MAP_FAILED) return base::ErrnoStatus(errno, "mmap a slab");
  made.bytes = static_cast<std::byte*>(mapped);
  const int fd = made.fd.get();
  if (bpf_map_update_elem(maps_.slabs, &slab, &fd, BPF_ANY) != 0) {
    const absl::Status status = base::ErrnoStatus(errno, "bpf: add a slab");
    ::munmap(mapped, FW_SLAB_BYTES);
    return status;
  }
  if (const uint64_t charged = MapChargedBytes(fd); charged != 0) slab_bytes_ = charged;
  slabs_.insert_or_assign(slab, std::move(made));
  return absl::OkStatus();
}

// The deletion waits for running programs while our descriptor still holds the map: before Linux
// 6.8 an inner map whose last reference was dropped could be freed under a program that reads it.
void BpfTableMemory::RemoveSlab(uint32_t slab) {
  const auto found = slabs_.find(slab);
  if (found == slabs_.end()) return;
  if (bpf_map_delete_elem(maps_.slabs, &slab) != 0) {
    spdlog::error("{}", base::Message(base::ErrnoStatus(errno, "bpf: remove a slab")));
  }
  ::munmap(found->second.bytes, FW_SLAB_BYTES);
  slabs_.erase(found);
}

// Putting a slab where it is already: after any change of an array of maps the system call waits
// until the programs that were running have ended (maybe_wait_bpf_programs, since Linux 4.20).
void BpfTableMemory::WaitForPrograms() {
  if (slabs_.empty()) return;
  const uint32_t slab = slabs_.begin()->first;
  const int fd = slabs_.begin()->second.fd.get();
  if (bpf_map_update_elem(maps_.slabs, &slab, &fd, BPF_ANY) != 0) {
    spdlog::error("{}", base::Message(base::ErrnoStatus(errno, "bpf: wait for programs")));
  }
}

// Behind the change: a program that sees the new number also sees what changed.
void BpfTableMemory::NextGeneration() {
  if (maps_.generation == nullptr) return;
  std::atomic_ref<uint32_t>(*maps_.generation).fetch_add(1, std::memory_order_release);
}

absl::Status BpfTableMemory::SetKnownFile(const fw_file_key& key, const fw_known_file& file) {
  if (bpf_map_update_elem(maps_.known_files, &key, &file, BPF_ANY) == 0) {
    NextGeneration();
    return absl::OkStatus();
  }
  if (errno == E2BIG) return base::ResourceExhausted("the map of known files is full");
  return base::ErrnoStatus(errno, "bpf: add a known file");
}

void BpfTableMemory::ForgetFile(const fw_file_key& key) {
  bpf_map_delete_elem(maps_.known_files, &key);
  NextGeneration();
}

}  // namespace firewatch::agent
