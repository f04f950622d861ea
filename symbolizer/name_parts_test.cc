// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/name_parts.h"

#include <gtest/gtest.h>

#include <string>

namespace firewatch::symbolizer {
namespace {

TEST(SplitNameTest, KnownSuffixesGo) {
  struct Case {
    const char* linkage;
    const char* function;
    bool cold;
    bool variant;
  };
  for (const Case& c : {Case{"main", "main", false, false},
                        {"", "", false, false},
                        {"foo.cold", "foo", true, false},
                        {"foo.cold.1", "foo", true, false},
                        {"_Z3foov.part.0.cold", "_Z3foov", true, true},
                        {"foo.__part.1", "foo", true, false},
                        {"foo.isra.0", "foo", false, true},
                        {"foo.constprop.0.isra.12", "foo", false, true},
                        {"_RNvC6_123foo3bar.llvm.1234567890", "_RNvC6_123foo3bar", false, true},
                        {"static_f.__uniq.298346", "static_f", false, true},
                        {"foo.lto_priv.0", "foo", false, true},
                        {"foo.content.deadbeef", "foo", false, true},
                        {"memcpy@@GLIBC_2.14", "memcpy", false, false},
                        {"memcpy@GLIBC_2.2.5", "memcpy", false, false},
                        {"printf@plt", "printf@plt", false, false}}) {
    const NameParts parts = SplitName(c.linkage);
    EXPECT_EQ(parts.function, c.function) << c.linkage;
    EXPECT_EQ(parts.cold, c.cold) << c.linkage;
    EXPECT_EQ(parts.variant, c.variant) << c.linkage;
  }
}

TEST(SplitNameTest, OtherDotsStay) {
  for (const char* name : {".cold", "foo.avx2.0", "foo._omp_fn.0", "a.b", "foo.", "foo.12",
                           "main.main", "core::fmt..llvm", "@plt", "f.resolver"}) {
    EXPECT_EQ(SplitName(name).function, name);
  }
}

TEST(SameFunctionTest, VariantsOfConstructorsAreOneFunction) {
  EXPECT_TRUE(SameFunction("_ZN1AC1Ev", "_ZN1AC2Ev"));
  EXPECT_TRUE(SameFunction("_ZN1AD0Ev", "_ZN1AD2Ev"));
  EXPECT_TRUE(SameFunction("_ZN1BCI11AEi", "_ZN1BCI21AEi"));
  EXPECT_TRUE(SameFunction("_Z1fv", "_Z1fv.localalias"));
  EXPECT_FALSE(SameFunction("_Z1av", "_Z1bv"));
  EXPECT_FALSE(SameFunction("_Z2f1v", "_Z2f2v"));
  EXPECT_FALSE(SameFunction("_ZN1AC1Ev", "_ZN1AC1Ei"));
}

TEST(ShortNameTest, TemplateArgumentsFoldAndParametersGo) {
  const std::pair<const char*, const char*> kCases[] = {
      {"main", "main"},
      {"foo(int)", "foo"},
      {"std::vector<int, std::allocator<int>>::push_back(int&&)", "std::vector<...>::push_back"},
      {"std::vector<int, std::allocator<int>>::size() const", "std::vector<...>::size"},
      {"void ns::f<int>(int)", "ns::f<...>"},
      {"std::map<int, A<B>> ns::make<int>(std::function<void (int)>)", "ns::make<...>"},
      {"decltype(auto) std::visit<A, B>(A&&, B&&)", "std::visit<...>"},
      {"(anonymous namespace)::f(int)", "(anonymous namespace)::f"},
      {"ns::(anonymous namespace)::A<int>::f(int) &&", "ns::(anonymous namespace)::A<...>::f"},
      {"f(int)::'lambda'(char)::operator()(char) const", "f::'lambda'::operator()"},
      {"f(int) const::{lambda(int)#1}::operator()(int) const", "f::{lambda#1}::operator()"},
      {"A::operator<(A const&) const", "A::operator<"},
      {"bool operator<< <int>(A<int>&)", "operator<<<...>"},
      {"A::operator()(int)", "A::operator()"},
      {"A::operator->() const", "A::operator->"},
      {"A::operator<=>(A const&) const", "A::operator<=>"},
      {"operator new(unsigned long)", "operator new"},
      {"A::operator std::vector<int>() const", "A::operator std::vector<...>"},
      {"A::operator==(A const&) const", "A::operator=="},
      {"f[abi:cxx11](int)", "f"},
      {"foo(int) (.cold)", "foo"},
      {"foo (.isra.0)", "foo"},
      {"foo(int) [clone .cold]", "foo"},
      {"non-virtual thunk to A<int>::f(int)", "non-virtual thunk to A<...>::f"},
      {"guard variable for f(int)::x", "guard variable for f::x"},
      {"std::enable_if<(1) < (2), int>::type g<((3) > (1))>(int)", "g<...>"}};
  for (const auto& [full, expected] : kCases) EXPECT_EQ(ShortName(full), expected) << full;
}

TEST(ShortNameTest, OtherLanguages) {
  const std::pair<const char*, const char*> kCases[] = {
      {"<alloc::vec::Vec<u8> as core::fmt::Debug>::fmt",
       "<alloc::vec::Vec<...> as core::fmt::Debug>::fmt"},
      {"core::iter::map::<u8, fn(u8) -> u16>::next", "core::iter::map::<...>::next"},
      {"foo::bar::{closure#0}", "foo::bar::{closure#0}"},
      {"core::ops::FnOnce::call_once{{vtable.shim}}",
       "core::ops::FnOnce::call_once{{vtable.shim}}"},
      {"main.(*thing).Spin", "main.(*thing).Spin"},
      {"github.com/x/y.Sort[go.shape.int]", "github.com/x/y.Sort[go.shape.int]"},
      {"void foo.bar!(int).baz(int)", "foo.bar!(...).baz"},
      {"-[NSString length]", "-[NSString length]"},
      {"$s4main3fooyyF", "$s4main3fooyyF"}};
  for (const auto& [full, expected] : kCases) EXPECT_EQ(ShortName(full), expected) << full;
}

TEST(ShortNameTest, WhatIsNoNameComesBackUnchanged) {
  for (const char* text : {"", "(", "f(", "a<b", ")", "void (*f(int))(char)", "f<(>", "]x["}) {
    EXPECT_EQ(ShortName(text), text);
  }
}

}  // namespace
}  // namespace firewatch::symbolizer
