// SPDX-License-Identifier: Apache-2.0
// `firewatch doctor`: what this kernel and these privileges allow, one line each.
#pragma once

namespace firewatch::cli {

// Prints the report (nothing when `quiet`). 0: everything works; 1: nothing can be sampled;
// with `quiet` 0 also when something is degraded, else 2 then.
int RunDoctor(bool quiet);

}  // namespace firewatch::cli
