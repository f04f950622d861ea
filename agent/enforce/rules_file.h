// SPDX-License-Identifier: Apache-2.0
// Rules from YAML (docs/firewall.md). The whole text is checked before anything comes of it.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "agent/enforce/rule.h"

namespace firewatch::agent {

// The text of a list of prefixes that a rule names (src_list, dst_list). Called once per name.
using ReadList = std::function<absl::StatusOr<std::string>(const std::string& name)>;

// InvalidArgument: "NAME:LINE: why", with the nearest key or word where one was mistyped.
absl::StatusOr<RuleSet> ParseRules(std::string_view yaml, std::string_view name,
                                   const ReadList& read_list);

// The lists that the rules name, each once. Errors of the YAML only; not of rules.
absl::StatusOr<std::vector<std::string>> ListsOfRules(std::string_view yaml, std::string_view name);

}  // namespace firewatch::agent
