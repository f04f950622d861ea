// SPDX-License-Identifier: Apache-2.0
// One x86-64 instruction: how long it is and what it does to the stack pointer and to control.
// Formats as in Intel's manual, volume 2, chapter 2 and the opcode maps of appendix A; what is not
// understood surely (EVEX, 3DNow!, far jumps) is said to be unknown.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace firewatch::symbolizer {

struct Instruction {
  enum class Kind : uint8_t {
    kUnknown,   // not decoded, or changes rsp in a way that cannot be followed
    kOrdinary,  // rsp is moved by `stack` bytes down (negative: up)
    kPush,      // of register `reg`; stack is 8
    kPop,       // into register `reg`; stack is -8
    kReturn,    // near, with nothing popped
    kJump,      // to `target`
    kBranch,    // to `target`, or on
    kLeaves,    // jumps to where it is not known, or never goes on (ud2, hlt)
    kPadding,   // nop of any length, int3
  };
  Kind kind = Kind::kUnknown;
  uint8_t length = 0;
  uint8_t reg = 0;  // by its number in the instruction set: rbx 3, rsp 4, rbp 5
  int64_t stack = 0;
  int64_t target = 0;  // relative to the beginning of this instruction
};

// The instruction at the beginning of `code`. kUnknown when it does not end in `code`.
Instruction DecodeInstruction(std::span<const std::byte> code);

}  // namespace firewatch::symbolizer
