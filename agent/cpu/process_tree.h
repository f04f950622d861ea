// SPDX-License-Identifier: Apache-2.0
// Living descendants of a process, from /proc. Only for the start of a filter: afterwards the
// kernel side follows forks by itself.
#pragma once

#include <string>
#include <vector>

#include "agent/core/events.h"

namespace firewatch::agent {

// `roots` and all their living descendants, each once. Processes that vanish meanwhile are left
// out.
std::vector<Pid> LivingDescendants(const std::vector<Pid>& roots,
                                   const std::string& proc_root = "/proc");

}  // namespace firewatch::agent
