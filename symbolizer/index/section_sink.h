// SPDX-License-Identifier: Apache-2.0
// Where the bytes of a section of an index go while they are made: one behind the other, so that a
// section need not be in memory as a whole.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "absl/status/status.h"

namespace firewatch::symbolizer {

// One thread at a time.
class SectionSink {
 public:
  virtual ~SectionSink() = default;
  virtual absl::Status Append(std::span<const std::byte> bytes) = 0;
};

// Keeps the section in memory.
class VectorSink final : public SectionSink {
 public:
  absl::Status Append(std::span<const std::byte> bytes) override {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return absl::OkStatus();
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }
  std::vector<std::byte> Take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace firewatch::symbolizer
