// SPDX-License-Identifier: Apache-2.0
// Texts that `firewatch symbolize` makes of what the index says.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace firewatch::cli {

// The name of a function without scopes, parameters and qualifiers, as the debug information has it
// (--functions=short): "ns::Box<int>::get() const" -> "get", "int deep<3>(Half)" -> "deep<3>",
// "operator()". What does not have that form comes back unchanged.
std::string BareName(std::string_view demangled);

// Words for symbolizer::SymbolFlag.
std::vector<std::string_view> FlagNames(uint8_t flags);

}  // namespace firewatch::cli
