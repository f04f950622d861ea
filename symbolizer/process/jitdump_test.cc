// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/process/jitdump.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <span>
#include <string>

#include "symbolizer/process/jitdump_builder_for_test.h"

namespace firewatch::symbolizer {
namespace {

SpanByteSource SourceOf(const std::string& text) {
  return SpanByteSource(std::as_bytes(std::span(text.data(), text.size())));
}

// "name file:line", "name" or "-".
std::string At(const JitDump& dump, const std::string& bytes, uint64_t address) {
  JitSymbol symbol;
  if (!dump.Find(SourceOf(bytes), address, &symbol)) return "-";
  return symbol.line == 0 ? symbol.name
                          : fmt::format("{} {}:{}", symbol.name, symbol.file, symbol.line);
}

TEST(JitDumpTest, LoadedCodeHasItsName) {
  JitDumpBuilder builder;
  builder.Load(0x1000, 0x40, "LazyCompile:~fib", 0x40);
  builder.Load(0x2000, 0x10, "second", 5000);
  JitDump dump(100);
  ASSERT_TRUE(dump.Update(SourceOf(builder.bytes())).ok());
  EXPECT_EQ(At(dump, builder.bytes(), 0x103f), "LazyCompile:~fib");
  EXPECT_EQ(At(dump, builder.bytes(), 0x1040), "-");
  EXPECT_EQ(At(dump, builder.bytes(), 0x2000), "second");
  EXPECT_EQ(dump.records(), 2u);
}

TEST(JitDumpTest, LineIsThatOfTheLastEntryUpToTheAddress) {
  JitDumpBuilder builder;
  builder.DebugInfo(0x1000,
                    {{0x1000, 3, "/srv/app.js"}, {0x1010, 4, "\xff"}, {0x1020, 9, "/b.js"}});
  builder.Load(0x1000, 0x40, "fib", 0x40);
  builder.Load(0x2000, 0x40, "no_lines", 0x40);
  JitDump dump(100);
  ASSERT_TRUE(dump.Update(SourceOf(builder.bytes())).ok());
  EXPECT_EQ(At(dump, builder.bytes(), 0x1000), "fib /srv/app.js:3");
  EXPECT_EQ(At(dump, builder.bytes(), 0x100f), "fib /srv/app.js:3");
  EXPECT_EQ(At(dump, builder.bytes(), 0x1010), "fib /srv/app.js:4");
  EXPECT_EQ(At(dump, builder.bytes(), 0x103f), "fib /b.js:9");
  EXPECT_EQ(At(dump, builder.bytes(), 0x2000), "no_lines");
}

TEST(JitDumpTest, MovedCodeKeepsNameAndLines) {
  JitDumpBuilder builder;
  builder.DebugInfo(0x1000, {{0x1000, 3, "a.js"}, {0x1010, 4, "a.js"}});
  builder.Load(0x1000, 0x40, "old_place", 0x40);
  builder.Move(0x1000, 0x5000, 0x40);
  builder.Move(0x5000, 0x6000, 0x40);
  builder.Load(0x1000, 0x40, "newcomer", 0x40);
  JitDump dump(100);
  ASSERT_TRUE(dump.Update(SourceOf(builder.bytes())).ok());
  EXPECT_EQ(At(dump, builder.bytes(), 0x5010), "old_place a.js:4");
  EXPECT_EQ(At(dump, builder.bytes(), 0x600f), "old_place a.js:3");
  EXPECT_EQ(At(dump, builder.bytes(), 0x1000), "newcomer");
}

TEST(JitDumpTest, RecordsAreTakenOnceTheyAreWhole) {
  JitDumpBuilder builder;
  builder.Load(0x1000, 0x40, "first", 0x40);
  builder.DebugInfo(0x2000, {{0x2000, 7, "b.js"}});
  builder.Load(0x2000, 0x40, "second", 0x40);
  builder.Close();
  JitDump dump(100);
  for (size_t size = 0; size < builder.bytes().size(); ++size) {
    ASSERT_TRUE(dump.Update(SourceOf(builder.bytes().substr(0, size))).ok()) << size;
    EXPECT_FALSE(dump.closed());
  }
  ASSERT_TRUE(dump.Update(SourceOf(builder.bytes())).ok());
  EXPECT_TRUE(dump.closed());
  EXPECT_EQ(At(dump, builder.bytes(), 0x1000), "first");
  EXPECT_EQ(At(dump, builder.bytes(), 0x2001), "second b.js:7");
}

TEST(JitDumpTest, OtherFilesAreRefused) {
  for (const auto& [magic, version, machine] :
       {std::tuple(0x4A695443u, 1u, EM_X86_64), std::tuple(0x4454694Au, 1u, EM_X86_64),
        std::tuple(0x4A695444u, 2u, EM_X86_64), std::tuple(0x4A695444u, 1u, EM_AARCH64)}) {
    JitDumpBuilder builder;
    builder.Header(magic, version, static_cast<uint32_t>(machine));
    builder.Load(0x1000, 0x40, "x", 0);
    JitDump dump(100);
    EXPECT_EQ(dump.Update(SourceOf(builder.bytes())).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(dump.ranges(), 0u);
  }
}

TEST(JitDumpTest, RecordWithoutSizeEndsTheFileForGood) {
  JitDumpBuilder builder;
  builder.Load(0x1000, 0x40, "before", 0);
  builder.Put32({2, 3});
  builder.Put64({9});
  builder.Load(0x2000, 0x40, "after", 0);
  JitDump dump(100);
  EXPECT_EQ(dump.Update(SourceOf(builder.bytes())).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(dump.Update(SourceOf(builder.bytes())).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(At(dump, builder.bytes(), 0x1000), "before");
  EXPECT_EQ(At(dump, builder.bytes(), 0x2000), "-");
}

TEST(JitDumpTest, RecordsShorterThanTheirFieldsAreCounted) {
  JitDumpBuilder builder;
  for (const uint32_t id : {0u, 1u, 2u}) builder.End(builder.Begin(id));
  builder.Move(0x7777, 0x8888, 4);  // of nothing
  builder.Load(0x1000, 0x40, "good", 0);
  JitDump dump(100);
  ASSERT_TRUE(dump.Update(SourceOf(builder.bytes())).ok());
  EXPECT_EQ(dump.malformed(), 4u);
  EXPECT_EQ(At(dump, builder.bytes(), 0x1000), "good");
}

TEST(JitDumpTest, DebugInfoThatPromisesTooMuchGivesWhatIsThere) {
  JitDumpBuilder builder;
  const size_t at = builder.Begin(2);
  builder.Put64({0x1000, UINT64_MAX, 0x1000});
  builder.Put32({5, 0});
  builder.Put32({0x00006a61});  // "aj\0\0", then nothing
  builder.End(at);
  builder.Load(0x1000, 0x40, "f", 0);
  JitDump dump(100);
  ASSERT_TRUE(dump.Update(SourceOf(builder.bytes())).ok());
  EXPECT_EQ(At(dump, builder.bytes(), 0x1000), "f aj:5");
}

TEST(JitDumpTest, BoundOfRangesHoldsAndIsCounted) {
  JitDumpBuilder builder;
  for (uint64_t i = 0; i < 200; ++i) builder.Load(0x1000 + i * 0x40, 0x20, "f", 0);
  JitDump dump(50);
  ASSERT_TRUE(dump.Update(SourceOf(builder.bytes())).ok());
  EXPECT_LE(dump.ranges(), 50u);
  EXPECT_EQ(dump.dropped(), 200 - dump.ranges());
}

}  // namespace
}  // namespace firewatch::symbolizer
