// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/demangle.h"

#include <llvm/Demangle/Demangle.h>

#include <cstdlib>
#include <memory>

#include "symbolizer/index/name_table.h"
#include "symbolizer/index/text.h"
#include "symbolizer/name_parts.h"

namespace firewatch::symbolizer {
namespace {

// The demanglers recurse by the length of the name. Names above this do occur (expression
// templates) but nobody reads them; they stay as they are.
constexpr size_t kMaxMangledBytes = size_t{16} << 10;

using MallocString = std::unique_ptr<char, decltype(&std::free)>;

std::string OrUnchanged(char* demangled, std::string_view mangled) {
  MallocString owned(demangled, &std::free);
  return owned == nullptr ? std::string(mangled) : std::string(owned.get());
}

}  // namespace

bool LooksMangled(std::string_view name) {
  if (name.size() < 3 || name.size() > kMaxMangledBytes || name[0] != '_') return false;
  // ___Z: blocks of Objective-C and Apple's extra underscore; __Z: the extra underscore alone.
  return name[1] == 'Z' || name[1] == 'R' || name[1] == 'D' || name.starts_with("__Z") ||
         name.starts_with("___Z");
}

std::string Demangle(std::string_view mangled) {
  if (!LooksMangled(mangled)) return std::string(mangled);
  if (auto rust = DemangleLegacyRust(mangled)) return *std::move(rust);
  // LLVM 19 takes std::string_view, but looks one byte further in places: give it a terminator.
  const std::string terminated(mangled);
  if (mangled[1] == 'R') return OrUnchanged(llvm::rustDemangle(terminated), mangled);
  if (mangled[1] == 'D') return OrUnchanged(llvm::dlangDemangle(terminated), mangled);
  return OrUnchanged(llvm::itaniumDemangle(terminated), mangled);
}

std::string ShownName(std::string_view linkage, bool keep_suffixes) {
  const bool mangled = LooksMangled(linkage);
  if (!mangled && (keep_suffixes || linkage.find_first_of(".@") == linkage.npos)) return "";
  if (linkage.find('/') != std::string_view::npos) return "";
  std::string_view function = linkage;
  // A mangled name has no dots of its own.
  if (mangled || !keep_suffixes) function = SplitName(linkage).function;
  std::string shown = Demangle(function);
  if (shown == linkage || shown.size() > kMaxDisplayBytes) return "";
  return IsPrintableUtf8(shown) ? shown : MakePrintable(shown);
}

}  // namespace firewatch::symbolizer
