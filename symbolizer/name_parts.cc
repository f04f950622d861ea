// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/name_parts.h"

#include <algorithm>
#include <array>
#include <cstddef>

namespace firewatch::symbolizer {
namespace {

enum class Suffix { kNone, kCold, kVariant };

bool IsNumber(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

bool IsHex(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// GCC: cold, part.N, isra.N, constprop.N, lto_priv.N, localalias, clone.N; clang: cold.N,
// __part.N, llvm.N, __uniq.N, specialized.N, extracted, argprom; its ThinLTO: content.HEX.
Suffix SuffixOf(std::string_view word, bool numbered) {
  if (word == "cold" || word == "__part") return Suffix::kCold;
  static constexpr std::array<std::string_view, 9> kNumbered = {
      "part",   "isra", "constprop",   "lto_priv",  "clone",
      "__uniq", "llvm", "specialized", "localalias"};
  if (numbered) {
    const bool known = std::find(kNumbered.begin(), kNumbered.end(), word) != kNumbered.end();
    return known ? Suffix::kVariant : Suffix::kNone;
  }
  const bool known = word == "localalias" || word == "extracted" || word == "argprom" ||
                     word == "isra" || word == "constprop";
  return known ? Suffix::kVariant : Suffix::kNone;
}

// Takes one suffix off the end; kNone: there is none that is known.
Suffix TakeSuffix(std::string_view* name) {
  const size_t dot = name->rfind('.');
  if (dot == std::string_view::npos || dot == 0) return Suffix::kNone;
  const std::string_view last = name->substr(dot + 1);
  Suffix suffix = SuffixOf(last, false);
  size_t begin = dot;
  if (suffix == Suffix::kNone && IsHex(last)) {
    begin = name->rfind('.', dot - 1);
    if (begin == std::string_view::npos || begin == 0) return Suffix::kNone;
    const std::string_view word = name->substr(begin + 1, dot - begin - 1);
    if (word == "content") suffix = Suffix::kVariant;
    if (IsNumber(last)) suffix = std::max(suffix, SuffixOf(word, true));
  }
  if (suffix != Suffix::kNone) *name = name->substr(0, begin);
  return suffix;
}

bool IsMangled(std::string_view name) { return name.starts_with("_Z") || name.starts_with("_R"); }

}  // namespace

NameParts SplitName(std::string_view linkage) {
  NameParts parts{.function = linkage};
  if (const size_t at = linkage.find('@'); at != std::string_view::npos && at > 0) {
    if (linkage.substr(at) == "@plt") return parts;
    parts.function = linkage.substr(0, at);
  }
  while (true) {
    const Suffix suffix = TakeSuffix(&parts.function);
    if (suffix == Suffix::kNone) return parts;
    (suffix == Suffix::kCold ? parts.cold : parts.variant) = true;
  }
}

bool SameFunction(std::string_view a, std::string_view b) {
  a = SplitName(a).function;
  b = SplitName(b).function;
  if (a == b) return true;
  if (a.size() != b.size() || !IsMangled(a) || !IsMangled(b)) return false;
  const auto [at_a, at_b] = std::mismatch(a.begin(), a.end(), b.begin());
  const auto at = static_cast<size_t>(at_a - a.begin());
  if (at < 3 || a.substr(at + 1) != b.substr(at + 1)) return false;
  const bool variant = *at_a >= '0' && *at_a <= '5' && *at_b >= '0' && *at_b <= '5';
  const std::string_view before = a.substr(0, at);
  return variant && (before.ends_with('C') || before.ends_with('D') || before.ends_with("CI"));
}

}  // namespace firewatch::symbolizer
