// SPDX-License-Identifier: Apache-2.0
// An image as the kernel has it, mapped into this process: an array map of its first slab, and one
// of the others where there are any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "agent/enforce/image.h"
#include "base/unique_fd.h"

namespace firewatch::agent {

// Move only. The kernel's maps live as long as this, or as they are in the maps of maps.
class ImageMap {
 public:
  static absl::StatusOr<ImageMap> Create(const Image& image);
  // An image that stands at `key` of the map of generations, with what `rests_fd` (image_rests) has
  // of it; NotFound when there is none, FailedPrecondition when it is of another version.
  static absl::StatusOr<ImageMap> Find(int generations_fd, int rests_fd, uint32_t key);

  ImageMap(ImageMap&& other) noexcept;
  ImageMap& operator=(ImageMap&& other) noexcept;
  ~ImageMap();

  int fd() const { return fd_.get(); }
  int rest_fd() const { return rest_fd_.get(); }  // negative: one slab is all
  size_t bytes() const { return bytes_; }
  const fw_image& header() const { return *reinterpret_cast<const fw_image*>(data_); }
  const fw_rule& rule(size_t index) const {
    return reinterpret_cast<const fw_rule*>(data_ + FW_IMAGE_RULES)[index % FW_RULES_MAX];
  }
  std::string_view metadata() const;
  // fw_image.rest, before the image is in force.
  void SetRest(uint32_t place);
  // One store: the program sees the deadline or none.
  void ClearDeadline();

 private:
  ImageMap() = default;
  absl::Status Map(size_t slabs);
  void Unmap();

  base::UniqueFd fd_, rest_fd_;
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace firewatch::agent
