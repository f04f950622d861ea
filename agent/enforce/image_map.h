// SPDX-License-Identifier: Apache-2.0
// An image as the kernel has it: one array map, mapped into this process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "agent/enforce/image.h"
#include "base/unique_fd.h"

namespace firewatch::agent {

// Move only. The kernel's map lives as long as this, or as it is in the map of generations.
class ImageMap {
 public:
  static absl::StatusOr<ImageMap> Create(const Image& image);
  // An image that stands at `key` of the map of generations; NotFound when there is none,
  // FailedPrecondition when it is of another version.
  static absl::StatusOr<ImageMap> Find(int generations_fd, uint32_t key);

  ImageMap(ImageMap&& other) noexcept;
  ImageMap& operator=(ImageMap&& other) noexcept;
  ~ImageMap();

  int fd() const { return fd_.get(); }
  size_t bytes() const { return bytes_; }
  const fw_image& header() const { return *reinterpret_cast<const fw_image*>(data_); }
  const fw_rule& rule(size_t index) const {
    return reinterpret_cast<const fw_rule*>(data_ + FW_IMAGE_RULES)[index % FW_RULES_MAX];
  }
  std::string_view metadata() const;
  // One store: the program sees the deadline or none.
  void ClearDeadline();

 private:
  ImageMap() = default;
  absl::Status Map();

  base::UniqueFd fd_;
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace firewatch::agent
