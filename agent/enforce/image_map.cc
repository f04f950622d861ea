// SPDX-License-Identifier: Apache-2.0
#include "agent/enforce/image_map.h"

#include <bpf/bpf.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/status.h"

namespace firewatch::agent {

absl::StatusOr<ImageMap> ImageMap::Create(const Image& image) {
  LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_INNER_MAP | BPF_F_MMAPABLE);
  ImageMap map;
  map.fd_.Reset(::bpf_map_create(BPF_MAP_TYPE_ARRAY, "fw_image", sizeof(uint32_t),
                                 FW_IMAGE_SLAB_BYTES, static_cast<uint32_t>(image.slab_count()),
                                 &options));
  if (!map.fd_.valid()) return base::ErrnoStatus(errno, "make a map for the rules");
  map.bytes_ = image.bytes();
  RETURN_IF_ERROR(map.Map());
  std::memcpy(map.data_, image.words.data(), image.bytes());
  return map;
}

absl::StatusOr<ImageMap> ImageMap::Find(int generations_fd, uint32_t key) {
  uint32_t id = 0;
  if (::bpf_map_lookup_elem(generations_fd, &key, &id) != 0) {
    return base::ErrnoStatus(errno, "look up the rules in force");
  }
  ImageMap map;
  map.fd_.Reset(::bpf_map_get_fd_by_id(id));
  if (!map.fd_.valid()) return base::ErrnoStatus(errno, "open the map of the rules in force");
  bpf_map_info info{};
  uint32_t size = sizeof(info);
  if (::bpf_obj_get_info_by_fd(map.fd(), &info, &size) != 0) {
    return base::ErrnoStatus(errno, "ask for the map of the rules in force");
  }
  map.bytes_ = size_t{info.max_entries} * info.value_size;
  RETURN_IF_ERROR(map.Map());
  const fw_image& header = map.header();
  if (header.layout != FW_IMAGE_LAYOUT || header.rule_count > FW_RULES_MAX ||
      uint64_t{header.metadata} * 8 + header.metadata_bytes > map.bytes_) {
    return base::FailedPrecondition("the rules in force were loaded by another version");
  }
  return map;
}

absl::Status ImageMap::Map() {
  void* data = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd(), 0);
  if (data == MAP_FAILED) return base::ErrnoStatus(errno, "map the rules into memory");
  data_ = static_cast<uint8_t*>(data);
  return absl::OkStatus();
}

ImageMap::ImageMap(ImageMap&& other) noexcept
    : fd_(std::move(other.fd_)), data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}

ImageMap& ImageMap::operator=(ImageMap&& other) noexcept {
  if (this == &other) return *this;
  if (data_ != nullptr) ::munmap(data_, bytes_);
  fd_ = std::move(other.fd_);
  data_ = std::exchange(other.data_, nullptr);
  bytes_ = other.bytes_;
  return *this;
}

ImageMap::~ImageMap() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

std::string_view ImageMap::metadata() const {
  return {reinterpret_cast<const char*>(data_) + size_t{header().metadata} * 8,
          header().metadata_bytes};
}

void ImageMap::ClearDeadline() {
  auto* header = reinterpret_cast<fw_image*>(data_);
  std::atomic_ref<fw_u64>(header->confirm_deadline_ns).store(0);
}

}  // namespace firewatch::agent
