// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace firewatch::bench {

// Never returns: burns CPU below `depth` frames of its own until the process is ended.
void Burn(int depth);

}  // namespace firewatch::bench
