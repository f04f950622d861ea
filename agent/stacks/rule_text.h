// SPDX-License-Identifier: Apache-2.0
// An unwind rule in words, for people who compare unwinders.
#pragma once

#include <string>

#include "bpf/include/unwind_table.h"

namespace firewatch::agent {

// "cfa=rsp+48 rbp=cfa-16 rbx=cfa-24"; "none", "root", "signal", "plt".
std::string RuleText(const fw_unwind_rule& rule, const fw_rule_slot& slot);

}  // namespace firewatch::agent
