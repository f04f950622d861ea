// SPDX-License-Identifier: Apache-2.0
// Rust's mangling before v0, which LLVM takes for C++. The escapes stand for characters that an
// identifier of C may not have; the last component is a hash, which nobody wants to see.
#include <algorithm>
#include <charconv>
#include <string>
#include <vector>

#include "symbolizer/demangle.h"

namespace firewatch::symbolizer {
namespace {

struct Escape {
  std::string_view code;
  std::string_view text;
};
constexpr Escape kEscapes[] = {{"$SP$", "@"}, {"$BP$", "*"}, {"$RF$", "&"}, {"$LT$", "<"},
                               {"$GT$", ">"}, {"$LP$", "("}, {"$RP$", ")"}, {"$C$", ","}};

// "17h" and 16 lower-case hex digits of which at least five differ: C++ names do end in h… too.
bool IsHash(std::string_view component) {
  if (component.size() != 17 || component[0] != 'h') return false;
  const std::string_view digits = component.substr(1);
  if (digits.find_first_not_of("0123456789abcdef") != std::string_view::npos) return false;
  std::string sorted(digits);
  std::sort(sorted.begin(), sorted.end());
  return std::unique(sorted.begin(), sorted.end()) - sorted.begin() >= 5;
}

// The components of _ZN3foo3barE…; `rest` is what follows the E. Empty when malformed.
std::vector<std::string_view> SplitComponents(std::string_view text, std::string_view* rest) {
  std::vector<std::string_view> components;
  while (!text.empty() && text[0] != 'E') {
    size_t length = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), length);
    if (error != std::errc()) return {};
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    if (length == 0 || length > text.size()) return {};
    components.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  if (text.empty()) return {};
  *rest = text.substr(1);
  return components;
}

// "$u7e$" stands for the character with that code; only printable ASCII is unescaped.
size_t AppendUnicodeEscape(std::string_view text, std::string* out) {
  const size_t end = text.find('$', 2);
  if (!text.starts_with("$u") || end == std::string_view::npos) return 0;
  unsigned code = 0;
  const auto [stop, error] = std::from_chars(text.data() + 2, text.data() + end, code, 16);
  if (error != std::errc() || stop != text.data() + end || code < 0x20 || code > 0x7e) return 0;
  *out += static_cast<char>(code);
  return end + 1;
}

// Appends what `text` starts with in readable form; returns the bytes taken.
size_t AppendReadable(std::string_view text, std::string* out) {
  for (const Escape& escape : kEscapes) {
    if (text.starts_with(escape.code)) {
      *out += escape.text;
      return escape.code.size();
    }
  }
  if (const size_t taken = AppendUnicodeEscape(text, out); taken > 0) return taken;
  if (text.starts_with("..")) {
    *out += "::";
    return 2;
  }
  *out += text[0];
  return 1;
}

}  // namespace

std::optional<std::string> DemangleLegacyRust(std::string_view mangled) {
  for (std::string_view prefix : {"___ZN", "__ZN", "_ZN"}) {
    if (!mangled.starts_with(prefix)) continue;
    std::string_view suffix;
    const auto components = SplitComponents(mangled.substr(prefix.size()), &suffix);
    if (components.size() < 2 || !IsHash(components.back())) return std::nullopt;
    if (!suffix.empty() && suffix[0] != '.') return std::nullopt;
    std::string out;
    for (size_t i = 0; i + 1 < components.size(); ++i) {
      if (i > 0) out += "::";
      std::string_view text = components[i];
      if (text.starts_with("_$")) text.remove_prefix(1);  // a name may not start with an escape
      while (!text.empty()) text.remove_prefix(AppendReadable(text, &out));
    }
    if (!suffix.empty()) out.append(" (").append(suffix).append(")");
    return out;
  }
  return std::nullopt;
}

}  // namespace firewatch::symbolizer
