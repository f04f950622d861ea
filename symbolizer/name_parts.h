// SPDX-License-Identifier: Apache-2.0
// What a linkage name says beside the function: suffixes of compilers ("foo.cold", "foo.isra.0",
// "_Z3foov.llvm.123"), versions of symbols ("memcpy@@GLIBC_2.14"). And short forms of long names.
#pragma once

#include <string>
#include <string_view>

namespace firewatch::symbolizer {

struct NameParts {
  std::string_view function;  // a prefix of the linkage name; never empty unless that is
  bool cold = false;          // .cold: the part of the function that is rarely run
  bool variant = false;       // .isra, .constprop, .part, .llvm, ...: a specialised or renamed copy
};

// Takes the suffixes off. The number behind one goes with it: foo.constprop.0.cold -> foo. What is
// not known as a suffix stays (foo.avx2, foo._omp_fn.0 are functions of their own). The name of a
// PLT slot, "foo@plt", stays whole.
NameParts SplitName(std::string_view linkage);

// True when two linkage names of one address mean one function: equal without suffixes, or the
// variants of a constructor or destructor (C1, C2, D0, ...) that Itanium's rules put into one body.
bool SameFunction(std::string_view a, std::string_view b);

// A demangled name in short: template arguments folded to <...>, parameters, qualifiers, return
// type and clone marks dropped. "std::vector<int, std::allocator<int>>::push_back(int&&)" ->
// "std::vector<...>::push_back". Lambdas, operators, Rust's <T as Trait>::method and Go's names
// keep what tells them apart. What is not the form of a name comes back unchanged.
std::string ShortName(std::string_view demangled);

}  // namespace firewatch::symbolizer
