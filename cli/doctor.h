// SPDX-License-Identifier: Apache-2.0
// `firewatch doctor`: what this kernel and these privileges allow, one line each.
#pragma once

namespace firewatch::cli {

// Prints the report (nothing when `quiet`). 0: everything works; 1: nothing can be sampled; 2:
// something is degraded, or a fallback samples (with `quiet` 0 then, too).
int RunDoctor(bool quiet);

// Prints the name of the sampler that `auto` takes here: ebpf, perf, ptrace or none. For scripts.
int PrintBestSampler();

}  // namespace firewatch::cli
