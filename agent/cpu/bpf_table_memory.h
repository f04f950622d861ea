// SPDX-License-Identifier: Apache-2.0
// TableMemory in BPF maps: `tables` and every slab are mapped into this process, so that filling
// them costs a copy and no system call.
#pragma once

#include <map>
#include <memory>

#include "absl/status/statusor.h"
#include "agent/cpu/table_memory.h"
#include "base/unique_fd.h"

namespace firewatch::agent {

// One home thread.
class BpfTableMemory final : public TableMemory {
 public:
  // The maps of bpf/unwind_maps.h; they stay the caller's and must outlive the object.
  struct Maps {
    int tables = -1;
    int slabs = -1;
    int known_files = -1;
    uint32_t* generation = nullptr;  // known_files_generation, mapped
  };
  static absl::StatusOr<std::unique_ptr<BpfTableMemory>> Open(const Maps& maps);
  ~BpfTableMemory() override;
  BpfTableMemory(const BpfTableMemory&) = delete;
  BpfTableMemory& operator=(const BpfTableMemory&) = delete;

  std::span<fw_table> tables() override { return tables_; }
  absl::Status AddSlab(uint32_t slab) override;
  std::byte* Slab(uint32_t slab) override { return slabs_.at(slab).bytes; }
  void RemoveSlab(uint32_t slab) override;
  void WaitForPrograms() override;
  uint64_t SlabBytes() const override { return slab_bytes_; }
  absl::Status SetKnownFile(const fw_file_key& key, const fw_known_file& file) override;
  void ForgetFile(const fw_file_key& key) override;

 private:
  struct MappedSlab {
    base::UniqueFd fd;
    std::byte* bytes = nullptr;
  };

  void NextGeneration();
  BpfTableMemory(const Maps& maps, std::span<fw_table> tables) : maps_(maps), tables_(tables) {}

  const Maps maps_;
  const std::span<fw_table> tables_;
  std::map<uint32_t, MappedSlab> slabs_;
  // Until one has been made: the value and the page before it for the head of the map.
  uint64_t slab_bytes_ = FW_SLAB_BYTES + 8192;
};

}  // namespace firewatch::agent
