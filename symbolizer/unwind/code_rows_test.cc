// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/unwind/code_rows.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <initializer_list>
#include <string>

#include "base/unique_fd.h"
#include "bpf/include/unwind_table.h"
#include "symbolizer/elf/elf_reader.h"
#include "symbolizer/unwind/cfi_sections.h"
#include "symbolizer/unwind/instruction.h"

namespace firewatch::symbolizer {
namespace {

std::vector<std::byte> Bytes(std::initializer_list<int> values) {
  std::vector<std::byte> bytes;
  for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

// "+0:8 +1:16 rbp-16": place, CFA offset, and where rbp and rbx are saved.
std::string Text(const std::vector<CodeFunction>& functions) {
  std::string text;
  for (const CodeFunction& function : functions) {
    for (const CfiRow& row : function.rows) {
      text += (text.empty() ? "+" : " +") + std::to_string(row.vaddr - function.start) + ":" +
              std::to_string(row.state.cfa.offset);
      if (row.state.rbp.kind == CfiRule::Kind::kAtCfa) {
        text += " rbp" + std::to_string(row.state.rbp.offset);
      }
      if (row.state.rbx.kind == CfiRule::Kind::kAtCfa) {
        text += " rbx" + std::to_string(row.state.rbx.offset);
      }
    }
    text += ";";
  }
  return text;
}
std::string Read(std::initializer_list<int> code, bool begins = true) {
  return Text(RowsFromCode(Bytes(code), 0x1000, begins));
}

TEST(CodeRowsTest, FollowsPushAndPop) {
  // push rbp; push rbx; nop; pop rbx; pop rbp; ret
  EXPECT_EQ(Read({0x55, 0x53, 0x90, 0x5b, 0x5d, 0xc3}),
            "+0:8 +1:16 rbp-16 +2:24 rbp-16 rbx-24 +4:16 rbp-16 +5:8;");
}

TEST(CodeRowsTest, FollowsInitOfEveryLibrary) {
  // endbr64; sub $8,%rsp; test %rax,%rax; je over the call; call *%rax; add $8,%rsp; ret
  EXPECT_EQ(Read({0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x83, 0xec, 0x08, 0x48, 0x85,
                  0xc0, 0x74, 0x02, 0xff, 0xd0, 0x48, 0x83, 0xc4, 0x08, 0xc3}),
            "+0:8 +8:16 +19:8;");
}

TEST(CodeRowsTest, AReturnWithAnotherDepthIsNotBelieved) {
  EXPECT_EQ(Read({0x55, 0xc3}), "");        // push rbp; ret
  EXPECT_EQ(Read({0x55, 0x58, 0xc3}), "");  // push rbp; pop rax: rbp is lost
}

TEST(CodeRowsTest, WhatMovesTheStackPointerUnseenIsNotBelieved) {
  EXPECT_EQ(Read({0x48, 0x89, 0xec, 0xc3}), "");        // mov %rbp,%rsp
  EXPECT_EQ(Read({0x48, 0x83, 0xe4, 0xf0, 0xc3}), "");  // and $-16,%rsp
  EXPECT_EQ(Read({0xc9, 0xc3}), "");                    // leave
  EXPECT_EQ(Read({0x48, 0x29, 0xc4, 0xc3}), "");        // sub %rax,%rsp
  EXPECT_EQ(Read({0x48, 0x8b, 0x65, 0x00, 0xc3}), "");  // mov (%rbp),%rsp
}

TEST(CodeRowsTest, PlacesReachedWithTwoDepthsAreNotBelieved) {
  // je +1; push rax; ret
  EXPECT_EQ(Read({0x74, 0x01, 0x50, 0xc3}), "");
  // push rax; jmp -3 (to the push again)
  EXPECT_EQ(Read({0x50, 0xeb, 0xfd, 0xc3}), "");
}

TEST(CodeRowsTest, CodeBehindAJumpTakesTheDepthOfItsBranches) {
  // push rax; je +2; pop rax; ret; (target) pop rcx; ret
  EXPECT_EQ(Read({0x50, 0x74, 0x02, 0x58, 0xc3, 0x59, 0xc3}), "+0:8 +1:16 +4:8 +5:16 +6:8;");
  // The same with a nop in front of the target, and with an instruction that nothing leads to.
  EXPECT_EQ(Read({0x50, 0x74, 0x03, 0x58, 0xc3, 0x90, 0x59, 0xc3}), "+0:8 +1:16 +4:8 +6:16 +7:8;");
  EXPECT_EQ(Read({0x50, 0x74, 0x03, 0x58, 0xc3, 0xf8, 0x59, 0xc3}), "");
}

TEST(CodeRowsTest, NextFunctionBeginsAlignedBehindPadding) {
  EXPECT_EQ(Read({0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90,
                  0x90, 0x90, 0x90, 0x53, 0x5b, 0xc3},
                 false),
            "+0:8 +1:16 rbx-16 +2:8;");
  EXPECT_EQ(Read({0x90, 0x53, 0x5b, 0xc3}, false), "");
}

TEST(CodeRowsTest, HostileBytesEndQuietly) {
  uint64_t x = 1;
  for (size_t round = 0; round < 20'000; ++round) {
    std::vector<std::byte> bytes(round % 64);
    for (std::byte& byte : bytes) {
      x = x * 6364136223846793005 + 1442695040888963407;
      byte = static_cast<std::byte>(x >> 56);
    }
    RowsFromCode(bytes, 0x1000, true);
  }
}

// The compiler's own CFI judges: every function of a library that has it is read as if it had none.
// What is believed must say the same at every row, and that must be no small part.
TEST(CodeRowsTest, SaysWhatTheCfiOfRealFunctionsSays) {
  const base::UniqueFd fd(::open("/usr/lib/x86_64-linux-gnu/libc.so.6", O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) GTEST_SKIP() << "libc is elsewhere";
  const FdByteSource source(fd.get());
  const auto elf = ElfReader::Open(source);
  ASSERT_TRUE(elf.ok());
  const auto cfi = ReadCfiSections(*elf, uint64_t{1} << 30);
  ASSERT_TRUE(cfi.ok());
  const CfiSection& section = cfi->sections[0];
  CfiEntries entries = ReadCfiEntries(section);
  size_t believed = 0;
  size_t wrong = 0;
  for (const Fde& fde : entries.fdes) {
    const Cie& cie = entries.cies[fde.cie];
    CfiState initial;
    std::vector<CfiRow> rows;
    if (RunCie(section, cie, &initial) != CfiReason::kNone ||
        RunFde(section, cie, initial, fde, &rows) != CfiReason::kNone) {
      continue;
    }
    const auto offset = elf->FileOffsetOf(fde.start);
    std::vector<std::byte> code(fde.size);
    if (!offset || !source.Read(*offset, code).ok()) continue;
    const std::vector<CodeFunction> functions = RowsFromCode(code, fde.start, true);
    if (functions.empty() || functions[0].end != fde.start + fde.size) continue;
    ++believed;
    for (const CfiRow& ours : functions[0].rows) {
      const CfiRow* theirs = nullptr;
      for (const CfiRow& row : rows) {
        if (row.vaddr <= ours.vaddr) theirs = &row;
      }
      // A CFA that hangs on rbp is the same place by another name: not comparable here.
      const bool by_rsp = theirs != nullptr && theirs->state.cfa.kind == CfaRule::Kind::kOffset &&
                          theirs->state.cfa.reg == FW_REGISTER_RSP;
      if (theirs != nullptr && !by_rsp) continue;
      const bool same = by_rsp && theirs->state.cfa.offset == ours.state.cfa.offset;
      if (same) continue;
      ++wrong;
      ADD_FAILURE() << std::hex << ours.vaddr << ": CFA rsp+" << std::dec << ours.state.cfa.offset
                    << ", the CFI says rsp+" << (theirs == nullptr ? 0 : theirs->state.cfa.offset);
      break;
    }
    ASSERT_LT(wrong, 20u);
  }
  RecordProperty("functions", static_cast<int>(entries.fdes.size()));
  RecordProperty("believed", static_cast<int>(believed));
  EXPECT_GT(believed, entries.fdes.size() / 6);
}

}  // namespace
}  // namespace firewatch::symbolizer
