// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/demangle.h"

#include <gtest/gtest.h>

#include <string>

namespace firewatch::symbolizer {
namespace {

TEST(DemangleTest, Cpp) {
  EXPECT_EQ(Demangle("_ZN9firewatch4base6Hash64ESt17basic_string_viewIcSt11char_traitsIcEE"),
            "firewatch::base::Hash64(std::basic_string_view<char, std::char_traits<char>>)");
  EXPECT_EQ(Demangle("_ZNKSt6vectorIiSaIiEE4sizeEv"),
            "std::vector<int, std::allocator<int>>::size() const");
}

TEST(DemangleTest, PartsThatCompilersSplitOffKeepTheirSuffix) {
  EXPECT_EQ(Demangle("_Z3fooi.cold"), "foo(int) (.cold)");
  EXPECT_EQ(Demangle("_Z3fooi.isra.0"), "foo(int) (.isra.0)");
  EXPECT_EQ(Demangle("foo.cold"), "foo.cold");
  EXPECT_EQ(Demangle("foo.constprop.0"), "foo.constprop.0");
}

TEST(DemangleTest, RustVersionZero) {
  EXPECT_EQ(Demangle("_RNvC6_123foo3bar"), "123foo::bar");
  EXPECT_EQ(Demangle("_RNvMs_NtCs4fqI2P2rA04_5crate3modNtB4_3Foo3new"), "<crate::mod::Foo>::new");
}

TEST(DemangleTest, LegacyRustLosesItsHash) {
  EXPECT_EQ(Demangle("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE"),
            "core::fmt::Write::write_fmt");
  EXPECT_EQ(Demangle("_ZN71_$LT$Test$u20$$u2b$$u20$$u27$static$u20$as$u20$foo..Bar$LT$Test$GT$$GT$"
                     "3bar17h930b740aa94f1d3aE"),
            "<Test + 'static as foo::Bar<Test>>::bar");
  EXPECT_EQ(Demangle("_ZN3foo3bar17h0123456789abcdefE.llvm.123"), "foo::bar (.llvm.123)");
}

TEST(DemangleTest, CppNameThatLooksLikeAHashIsCpp) {
  EXPECT_EQ(Demangle("_ZN3foo17h0000000000000000E"), "foo::h0000000000000000");
  EXPECT_EQ(Demangle("_ZN3foo17h0123456789abcdefEv"), "foo::h0123456789abcdef()");
}

TEST(DemangleTest, D) {
  EXPECT_EQ(Demangle("_Dmain"), "D main");
  EXPECT_EQ(Demangle("_D8demangle4testi"), "demangle.test");
}

TEST(DemangleTest, EverythingElseComesBackUnchanged) {
  for (const char* name : {"", "_", "_Z", "main", "_start", "_ZN", "_DYNAMIC", "_R", "_ZZZZ",
                           "_ZN99foo", "__libc_start_main"}) {
    EXPECT_EQ(Demangle(name), name);
  }
  const std::string huge = "_Z" + std::string(100'000, 'P') + "i";
  EXPECT_EQ(Demangle(huge), huge) << "would recurse 100,000 deep";
}

TEST(DemangleTest, LooksMangledAgreesWithDemangle) {
  EXPECT_FALSE(LooksMangled("main"));
  EXPECT_FALSE(LooksMangled("_start"));
  EXPECT_TRUE(LooksMangled("_Z3foov"));
  EXPECT_TRUE(LooksMangled("_RNvC6_123foo3bar"));
}

}  // namespace
}  // namespace firewatch::symbolizer
