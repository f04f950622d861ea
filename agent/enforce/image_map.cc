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

namespace {

absl::StatusOr<base::UniqueFd> MakeSlabs(const char* name, size_t count, uint32_t flags) {
  LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_MMAPABLE | flags);
  base::UniqueFd fd(::bpf_map_create(BPF_MAP_TYPE_ARRAY, name, sizeof(uint32_t),
                                     FW_IMAGE_SLAB_BYTES, static_cast<uint32_t>(count), &options));
  if (!fd.valid()) return base::ErrnoStatus(errno, "make a map for the rules");
  return fd;
}

// The map at `key` of a map of maps, and how many slabs it has.
absl::StatusOr<std::pair<base::UniqueFd, uint32_t>> FindSlabs(int outer_fd, uint32_t key) {
  uint32_t id = 0;
  if (::bpf_map_lookup_elem(outer_fd, &key, &id) != 0) {
    return base::ErrnoStatus(errno, "look up the rules in force");
  }
  base::UniqueFd fd(::bpf_map_get_fd_by_id(id));
  if (!fd.valid()) return base::ErrnoStatus(errno, "open the map of the rules in force");
  bpf_map_info info{};
  uint32_t size = sizeof(info);
  if (::bpf_obj_get_info_by_fd(fd.get(), &info, &size) != 0) {
    return base::ErrnoStatus(errno, "ask for the map of the rules in force");
  }
  if (info.value_size != FW_IMAGE_SLAB_BYTES) {
    return base::FailedPrecondition("the rules in force were loaded by another version");
  }
  return std::make_pair(std::move(fd), info.max_entries);
}

}  // namespace

absl::StatusOr<ImageMap> ImageMap::Create(const Image& image) {
  ImageMap map;
  ASSIGN_OR_RETURN(map.fd_, MakeSlabs("fw_image", 1, 0));
  if (image.slab_count() > 1) {
    ASSIGN_OR_RETURN(map.rest_fd_,
                     MakeSlabs("fw_image_rest", image.slab_count() - 1, BPF_F_INNER_MAP));
  }
  RETURN_IF_ERROR(map.Map(image.slab_count()));
  std::memcpy(map.data_, image.words.data(), image.used_bytes);
  return map;
}

absl::StatusOr<ImageMap> ImageMap::Find(int generations_fd, int rests_fd, uint32_t key) {
  const auto other_version = [] {
    return base::FailedPrecondition("the rules in force were loaded by another version");
  };
  ImageMap map;
  {
    ASSIGN_OR_RETURN(auto found, FindSlabs(generations_fd, key));
    map.fd_ = std::move(found.first);
  }
  RETURN_IF_ERROR(map.Map(1));
  if (map.header().layout != FW_IMAGE_LAYOUT) return other_version();
  if (const uint32_t slabs = map.header().slab_count; slabs != 1) {
    ASSIGN_OR_RETURN(auto found, FindSlabs(rests_fd, map.header().rest - 1));
    if (uint64_t{found.second} + 1 != slabs) return other_version();
    map.rest_fd_ = std::move(found.first);
    map.Unmap();
    RETURN_IF_ERROR(map.Map(slabs));
  }
  const fw_image& header = map.header();
  if (header.rule_count > FW_RULES_MAX ||
      uint64_t{header.metadata} * 8 + header.metadata_bytes > map.bytes_) {
    return other_version();
  }
  return map;
}

// Both maps, one behind the other: what the image holds may begin in one and end in the other.
absl::Status ImageMap::Map(size_t slabs) {
  void* data = ::mmap(nullptr, slabs * FW_IMAGE_SLAB_BYTES, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) return base::ErrnoStatus(errno, "map the rules into memory");
  data_ = static_cast<uint8_t*>(data);
  bytes_ = slabs * FW_IMAGE_SLAB_BYTES;
  const auto put = [](uint8_t* at, size_t bytes, int fd) {
    return bytes == 0 ||
           ::mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED;
  };
  if (!put(data_, FW_IMAGE_SLAB_BYTES, fd()) ||
      !put(data_ + FW_IMAGE_SLAB_BYTES, bytes_ - FW_IMAGE_SLAB_BYTES, rest_fd())) {
    return base::ErrnoStatus(errno, "map the rules into memory");
  }
  return absl::OkStatus();
}

void ImageMap::Unmap() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
  data_ = nullptr;
}

ImageMap::ImageMap(ImageMap&& other) noexcept
    : fd_(std::move(other.fd_)),
      rest_fd_(std::move(other.rest_fd_)),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(other.bytes_) {}

ImageMap& ImageMap::operator=(ImageMap&& other) noexcept {
  if (this == &other) return *this;
  Unmap();
  fd_ = std::move(other.fd_);
  rest_fd_ = std::move(other.rest_fd_);
  data_ = std::exchange(other.data_, nullptr);
  bytes_ = other.bytes_;
  return *this;
}

ImageMap::~ImageMap() { Unmap(); }

std::string_view ImageMap::metadata() const {
  return {reinterpret_cast<const char*>(data_) + size_t{header().metadata} * 8,
          header().metadata_bytes};
}

void ImageMap::SetRest(uint32_t place) {
  auto* header = reinterpret_cast<fw_image*>(data_);
  std::atomic_ref<fw_u32>(header->rest).store(place);
}

void ImageMap::ClearDeadline() {
  auto* header = reinterpret_cast<fw_image*>(data_);
  std::atomic_ref<fw_u64>(header->confirm_deadline_ns).store(0);
}

}  // namespace firewatch::agent
