// SPDX-License-Identifier: Apache-2.0
#include "cli/symbolize_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "symbolizer/index/symbol_index.h"

namespace firewatch::cli {
namespace {

using testing::ElementsAre;

TEST(SymbolizeNamesTest, BareNamesAreThoseOfTheSource) {
  EXPECT_EQ(BareName("main"), "main");
  EXPECT_EQ(BareName("leaf(int)"), "leaf");
  EXPECT_EQ(BareName("ns::Box<int>::get() const"), "get");
  EXPECT_EQ(BareName("int deep<3>(Half)"), "deep<3>");
  EXPECT_EQ(BareName("std::vector<std::pair<int, A::B>>::push_back(A::B&&)"), "push_back");
  EXPECT_EQ(BareName("(anonymous namespace)::helper(int (*)(char))"), "helper");
  EXPECT_EQ(BareName("a::b::operator()(int) const"), "operator()");
  EXPECT_EQ(BareName("bool operator< <int>(X<int> const&, X<int> const&)"), "operator< <int>");
  EXPECT_EQ(BareName("a::operator->() const"), "operator->");
  EXPECT_EQ(BareName("Widget::~Widget()"), "~Widget");
  EXPECT_EQ(BareName("f(int)::{lambda(int)#1}::operator()(int) const"), "operator()");
  EXPECT_EQ(BareName("A::f(int) const::{lambda()#2}::run() const"), "run");
  EXPECT_EQ(BareName("shapes::name[abi:cxx11](int)"), "name");
  EXPECT_EQ(BareName("puts@plt"), "puts@plt");
  EXPECT_EQ(BareName("broken<(("), "broken<((");
  EXPECT_EQ(BareName(""), "");
}

TEST(SymbolizeNamesTest, EveryFlagOfAFrameHasAWord) {
  EXPECT_THAT(FlagNames(0), ElementsAre());
  EXPECT_THAT(FlagNames(symbolizer::kInlined | symbolizer::kUnsized),
              ElementsAre("inlined", "unsized"));
  EXPECT_THAT(FlagNames(0x7f),
              ElementsAre("inlined", "plt", "cold", "variant", "aliased", "folded", "unsized"));
}

}  // namespace
}  // namespace firewatch::cli
