// SPDX-License-Identifier: Apache-2.0
// The memory of this process, as the kernel counts it.
#pragma once

#include <cstdint>
#include <string_view>

namespace firewatch::agent {

// A field of /proc/self/status that is given in kB ("VmRSS"), in bytes; 0 when it cannot be read.
uint64_t StatusBytes(std::string_view field);

// RssAnon in bytes: heap and stacks; neither mapped files nor mapped BPF maps.
uint64_t RssAnonBytes();

}  // namespace firewatch::agent
