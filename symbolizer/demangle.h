// SPDX-License-Identifier: Apache-2.0
// Demangling inside this room; the public function is Demangle() in symbolizer.h. It recurses and
// allocates by what the name says, so names of strangers are demangled in the helper only.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace firewatch::symbolizer {

// Cheap: false means that Demangle returns its input.
bool LooksMangled(std::string_view name);

// As Demangle() of symbolizer.h.
std::string Demangle(std::string_view mangled);

// Rust before v0 borrowed the Itanium form: _ZN <components> 17h<16 hex digits> E. Nothing when it
// is not that form.
std::optional<std::string> DemangleLegacyRust(std::string_view mangled);

}  // namespace firewatch::symbolizer
