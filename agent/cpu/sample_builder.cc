// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/sample_builder.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "base/check.h"

namespace firewatch::agent {

void SampleBuilder::Clear() {
  header_ = {};
  kernel_frames_.clear();
  user_frames_.clear();
}

void SampleBuilder::SetComm(std::string_view comm) {
  const size_t size = std::min<size_t>(comm.size(), FW_COMM_SIZE - 1);
  std::memset(header_.comm, 0, sizeof(header_.comm));
  std::memcpy(header_.comm, comm.data(), size);
}

SampleRecord SampleBuilder::Finish() {
  static_assert(sizeof(fw_sample) % sizeof(fw_u64) == 0);
  constexpr size_t kHeaderWords = sizeof(fw_sample) / sizeof(fw_u64);
  header_.version = FW_SAMPLE_VERSION;
  header_.header_size = sizeof(fw_sample);
  header_.kernel_frames = static_cast<fw_u16>(kernel_frames_.size());
  header_.user_frames = static_cast<fw_u16>(user_frames_.size());
  words_.resize(kHeaderWords);
  std::memcpy(words_.data(), &header_, sizeof(header_));
  words_.insert(words_.end(), kernel_frames_.begin(), kernel_frames_.end());
  words_.insert(words_.end(), user_frames_.begin(), user_frames_.end());
  const auto record = ParseSample(std::as_bytes(std::span(words_)));
  CHECK(record.ok());
  return *record;
}

}  // namespace firewatch::agent
