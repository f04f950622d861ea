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

// What is shown for a linkage name: demangled, without the suffixes of compilers (name_parts.h),
// printable; "" when that is the name itself. `keep_suffixes`: in Go a dot separates package and
// function. Text with a '/' in it, a path, is never touched.
std::string ShownName(std::string_view linkage, bool keep_suffixes);

// Rust before v0 borrowed the Itanium form: _ZN <components> 17h<16 hex digits> E. Nothing when it
// is not that form.
std::optional<std::string> DemangleLegacyRust(std::string_view mangled);

}  // namespace firewatch::symbolizer
