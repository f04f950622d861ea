// SPDX-License-Identifier: Apache-2.0
// Where the bytes of a section of an index go while they are made: one behind the other, so that a
// section need not be in memory as a whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
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

// Counts what goes into a sink, which must outlive it.
class SectionOutput {
 public:
  explicit SectionOutput(SectionSink& sink) : sink_(sink) {}
  absl::Status Append(std::span<const std::byte> bytes) {
    size_ += bytes.size();
    return sink_.Append(bytes);
  }
  // Zeros up to a multiple of 8.
  absl::Status Align() {
    constexpr std::byte kZeros[8] = {};
    const auto over = static_cast<size_t>(size_ % 8);
    return over == 0 ? absl::OkStatus() : Append(std::span(kZeros).first(8 - over));
  }
  uint64_t size() const { return size_; }

 private:
  SectionSink& sink_;
  uint64_t size_ = 0;
};

}  // namespace firewatch::symbolizer
