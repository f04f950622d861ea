// SPDX-License-Identifier: Apache-2.0
// Puts a sample record together in user space: the same bytes that bpf/cpu.bpf.c writes.
#pragma once

#include <string_view>
#include <vector>

#include "agent/cpu/sample.h"
#include "bpf/include/frame.h"

namespace firewatch::agent {

// One home thread; reused from sample to sample.
class SampleBuilder {
 public:
  // Fill in what is known; counts and version are set by Finish.
  fw_sample& header() { return header_; }
  std::vector<fw_u64>& kernel_frames() { return kernel_frames_; }
  std::vector<fw_u64>& user_frames() { return user_frames_; }
  void SetComm(std::string_view comm);

  void Clear();
  // Valid until Clear or the next Finish.
  SampleRecord Finish();

 private:
  fw_sample header_{};
  std::vector<fw_u64> kernel_frames_;
  std::vector<fw_u64> user_frames_;
  std::vector<fw_u64> words_;
};

}  // namespace firewatch::agent
