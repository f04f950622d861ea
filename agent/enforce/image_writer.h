// SPDX-License-Identifier: Apache-2.0
// Places in an image, handed out in order; and the interned sets of rules.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "bpf/include/firewall.h"

namespace firewatch::agent {

// Bit r % 64 of word r / 64: rule r.
using RuleMask = std::array<uint64_t, FW_RULE_WORDS_MAX>;

inline void SetBit(RuleMask* mask, size_t rule) { (*mask)[rule / 64] |= uint64_t{1} << rule % 64; }
inline RuleMask Union(const RuleMask& a, const RuleMask& b) {
  return {a[0] | b[0], a[1] | b[1], a[2] | b[2], a[3] | b[3]};
}

// Numbers for sets of rules; 0 is nobody's (see fw_addresses.none).
class Vectors {
 public:
  Vectors() : masks_(1) {}
  uint32_t Intern(const RuleMask& mask) {
    const auto [found, added] = ids_.try_emplace(mask, static_cast<uint32_t>(masks_.size()));
    if (added) masks_.push_back(mask);
    return found->second;
  }
  const RuleMask& mask(uint32_t id) const { return masks_[id]; }
  const std::vector<RuleMask>& masks() const { return masks_; }

 private:
  std::vector<RuleMask> masks_;
  absl::flat_hash_map<RuleMask, uint32_t> ids_;
};

// The bytes of an image, from the fixed part of slab 0 on.
class ImageWriter {
 public:
  ImageWriter() : words_(FW_IMAGE_FREE / 8) {}

  // Copies `values` to the next place that is a multiple of `align_bytes` (8 or more).
  template <typename T>
  fw_image_place Append(std::span<const T> values, size_t align_bytes = 8) {
    return AppendBytes(values.data(), values.size_bytes(), align_bytes);
  }
  template <typename T>
  fw_image_place Append(const std::vector<T>& values, size_t align_bytes = 8) {
    return Append(std::span<const T>(values), align_bytes);
  }
  // The same within one slab; at most FW_IMAGE_SLAB_BYTES.
  fw_image_place AppendWithinSlab(std::span<const uint8_t> bytes) {
    const size_t in_slab = words_.size() * 8 % FW_IMAGE_SLAB_BYTES;
    if (in_slab + bytes.size() > FW_IMAGE_SLAB_BYTES) Align(FW_IMAGE_SLAB_BYTES);
    return AppendBytes(bytes.data(), bytes.size(), 8);
  }
  // In the fixed part.
  template <typename T>
  T* At(size_t byte) {
    return reinterpret_cast<T*>(reinterpret_cast<uint8_t*>(words_.data()) + byte);
  }
  size_t bytes() const { return words_.size() * 8; }
  // Filled up to whole slabs.
  std::vector<uint64_t> Take() {
    Align(FW_IMAGE_SLAB_BYTES);
    return std::move(words_);
  }

 private:
  void Align(size_t bytes) {
    const size_t words = bytes / 8;
    words_.resize((words_.size() + words - 1) / words * words);
  }
  fw_image_place AppendBytes(const void* data, size_t bytes, size_t align_bytes) {
    Align(align_bytes);
    const size_t place = words_.size();
    words_.resize(place + (bytes + 7) / 8);
    if (bytes > 0) std::memcpy(words_.data() + place, data, bytes);
    return static_cast<fw_image_place>(place);
  }

  std::vector<uint64_t> words_;
};

}  // namespace firewatch::agent
