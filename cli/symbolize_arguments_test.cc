// SPDX-License-Identifier: Apache-2.0
#include "cli/symbolize_arguments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"

namespace firewatch::cli {
namespace {

using testing::ElementsAre;
using Arguments = std::vector<std::string_view>;

SymbolizeOptions Parsed(const Arguments& arguments) {
  absl::StatusOr<SymbolizeOptions> options = ParseSymbolizeArguments(arguments);
  EXPECT_TRUE(options.ok()) << base::Message(options.status());
  return options.ok() ? *options : SymbolizeOptions();
}

std::string Error(const Arguments& arguments) {
  return std::string(base::Message(ParseSymbolizeArguments(arguments).status()));
}

TEST(SymbolizeArgumentsTest, DefaultsAreThoseOfLlvm) {
  const SymbolizeOptions options = Parsed({});
  EXPECT_TRUE(options.inlines);
  EXPECT_TRUE(options.demangle);
  EXPECT_EQ(options.functions, FunctionNames::kLinkage);
  EXPECT_EQ(options.style, SymbolizeStyle::kLlvm);
  EXPECT_EQ(options.paths, FilePaths::kWhole);
  EXPECT_TRUE(options.addresses.empty());
}

TEST(SymbolizeArgumentsTest, EverySpellingOfTheFile) {
  for (const Arguments& spelling :
       {Arguments{"--exe", "f"}, Arguments{"--exe=f"}, Arguments{"--obj", "f"},
        Arguments{"--obj=f"}, Arguments{"-e", "f"}, Arguments{"-e=f"}, Arguments{"-obj=f"}}) {
    EXPECT_EQ(Parsed(spelling).module, "f") << spelling[0];
  }
  EXPECT_EQ(Parsed({"--exe", "a", "--exe", "b"}).module, "b");  // the last one counts
}

TEST(SymbolizeArgumentsTest, FlagsAndAddressesInAnyOrder) {
  const SymbolizeOptions options = Parsed({"0x1", "--exe", "f", "0x2", "-a", "-", "--", "-5"});
  EXPECT_THAT(options.addresses, ElementsAre("0x1", "0x2", "-", "-5"));
  EXPECT_TRUE(options.print_addresses);
}

TEST(SymbolizeArgumentsTest, ShortFlagsCanBeJoined) {
  const SymbolizeOptions options = Parsed({"-apse", "f"});
  EXPECT_TRUE(options.print_addresses);
  EXPECT_TRUE(options.pretty);
  EXPECT_EQ(options.paths, FilePaths::kBaseNames);
  EXPECT_EQ(Parsed({"--relativenames", "--exe=a"}).paths, FilePaths::kRelative);
  EXPECT_EQ(options.module, "f");
  EXPECT_EQ(Error({"-apx"}), "unknown argument '-apx'");
  EXPECT_EQ(Error({"-eap"}), "unknown argument '-eap'");
}

TEST(SymbolizeArgumentsTest, ValuesAndTheirAliases) {
  EXPECT_EQ(Parsed({"--output-style", "GNU"}).style, SymbolizeStyle::kGnu);
  EXPECT_EQ(Parsed({"--output-style=JSON"}).style, SymbolizeStyle::kJson);
  EXPECT_EQ(Parsed({"-f=short"}).functions, FunctionNames::kShort);
  EXPECT_EQ(Parsed({"--functions=none"}).functions, FunctionNames::kNone);
  // Without "=" the next argument is an address, as there.
  const SymbolizeOptions apart = Parsed({"--functions", "0x1"});
  EXPECT_EQ(apart.functions, FunctionNames::kLinkage);
  EXPECT_THAT(apart.addresses, ElementsAre("0x1"));
  EXPECT_EQ(Parsed({"--adjust-vma=0x10"}).adjust_vma, 16u);
  EXPECT_EQ(Parsed({"--adjust-vma", "16"}).adjust_vma, 16u);
  EXPECT_EQ(Parsed({"--build-id=ABC"}).build_id, "0abc");
  EXPECT_EQ(Parsed({"--print-source-context-lines=3"}).source_lines, 3u);
  EXPECT_THAT(Parsed({"--debug-file-directory=/a", "--fallback-debug-path=/b"}).debug_directories,
              ElementsAre("/a", "/b"));
}

TEST(SymbolizeArgumentsTest, TheLastOfOppositesCounts) {
  EXPECT_FALSE(Parsed({"--inlines", "--no-inlines"}).inlines);
  EXPECT_TRUE(Parsed({"--no-inlines", "-i"}).inlines);
  EXPECT_FALSE(Parsed({"-C", "--no-demangle"}).demangle);
  EXPECT_FALSE(Parsed({"-demangle=false"}).demangle);
  EXPECT_TRUE(Parsed({"--no-demangle", "--demangle=true"}).demangle);
  EXPECT_FALSE(Parsed({"--inlining=false"}).inlines);
}

// How sanitizers and pprof start a symbolizer.
TEST(SymbolizeArgumentsTest, CommandLinesOfOtherTools) {
  EXPECT_TRUE(Parsed({"--demangle", "--inlines", "--default-arch=x86_64"}).demangle);
  EXPECT_FALSE(Parsed({"--inlining", "-demangle=false"}).demangle);
  EXPECT_EQ(Parsed({"--no-debuginfod", "--color=never", "-e", "f"}).module, "f");
}

TEST(SymbolizeArgumentsTest, WhatIsWrongIsNamed) {
  EXPECT_EQ(Error({"--nosuch"}), "unknown argument '--nosuch'");
  EXPECT_EQ(Error({"--exe"}), "--exe: missing argument");
  EXPECT_EQ(Error({"--exe="}), "--exe: expected a file name");
  EXPECT_EQ(Error({"--adjust-vma=zz"}),
            "--adjust-vma: expected a non-negative integer, but got 'zz'");
  EXPECT_EQ(Error({"--adjust-vma=-1"}),
            "--adjust-vma: expected a non-negative integer, but got '-1'");
  EXPECT_EQ(Error({"--threads=5000000000"}),
            "--threads: expected a non-negative integer, but got '5000000000'");
  EXPECT_EQ(Error({"--build-id=zz"}), "--build-id: expected a build ID, but got 'zz'");
  EXPECT_EQ(Error({"--build-id=ab", "--exe", "a"}), "cannot specify both --build-id and --obj");
  EXPECT_EQ(Error({"--output-style=XML"}),
            "--output-style: expected LLVM, GNU or JSON, but got 'XML'");
  EXPECT_EQ(Error({"--functions=all"}),
            "--functions: expected none, short or linkage, but got 'all'");
  EXPECT_EQ(Error({"--inlines=maybe"}), "unknown argument '--inlines=maybe'");
  EXPECT_EQ(Error({"--debuginfod"}), "--debuginfod is llvm-symbolizer's, but not supported here");
  EXPECT_EQ(Error({"--stdin", "0x1"}), "--stdin and addresses ('0x1') exclude one another");
}

}  // namespace
}  // namespace firewatch::cli
