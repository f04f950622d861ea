// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/unwind/code_rows.h"

#include <map>
#include <optional>

#include "bpf/include/unwind_table.h"
#include "symbolizer/unwind/instruction.h"

namespace firewatch::symbolizer {
namespace {

constexpr uint64_t kFunctionAlignment = 16;
constexpr int64_t kMaxDepth = 1 << 20;
constexpr size_t kMaxFunctionBytes = 64 << 10;  // what is kept per instruction is 60 times that
constexpr uint8_t kRbx = 3;
constexpr uint8_t kRbp = 5;

// Where the stack pointer is below the return address, and where rbp and rbx were saved: the depth
// behind their push; 0: not saved.
struct StackState {
  int64_t depth = 0;
  int64_t rbp = 0;
  int64_t rbx = 0;
  friend bool operator==(const StackState&, const StackState&) = default;
};

CfiRule SavedAt(int64_t depth) {
  if (depth == 0) return {.kind = CfiRule::Kind::kSame};
  return {.kind = CfiRule::Kind::kAtCfa, .offset = -8 - depth};
}

CfiState StateOf(const StackState& stack) {
  return {
      .cfa = {.kind = CfaRule::Kind::kOffset, .reg = FW_REGISTER_RSP, .offset = stack.depth + 8},
      .return_address = {.kind = CfiRule::Kind::kAtCfa, .offset = -8},
      .rbp = SavedAt(stack.rbp),
      .rbx = SavedAt(stack.rbx)};
}

// False when the result cannot be followed.
bool Apply(const Instruction& instruction, StackState* state) {
  state->depth += instruction.stack;
  if (instruction.kind == Instruction::Kind::kPush) {
    if (instruction.reg == kRbp && state->rbp == 0) state->rbp = state->depth;
    if (instruction.reg == kRbx && state->rbx == 0) state->rbx = state->depth;
  }
  // What lies below the stack pointer is gone; then the register must have been read back.
  const bool restores = instruction.kind == Instruction::Kind::kPop;
  if (state->rbp > state->depth) {
    if (!restores || instruction.reg != kRbp) return false;
    state->rbp = 0;
  }
  if (state->rbx > state->depth) {
    if (!restores || instruction.reg != kRbx) return false;
    state->rbx = 0;
  }
  return state->depth >= 0 && state->depth < kMaxDepth;
}

// One function from its first instruction on.
class FunctionReader {
 public:
  FunctionReader(std::span<const std::byte> code, uint64_t vaddr, size_t at)
      : code_(code), vaddr_(vaddr), start_(at), at_(at) {}

  // Nothing when it does not prove itself.
  std::optional<CodeFunction> Run() {
    std::optional<StackState> state = StackState{};
    for (;;) {
      if (const auto met = expected_.find(at_); met != expected_.end()) {
        if (state && *state != met->second) return std::nullopt;
        state = met->second;
        expected_.erase(met);
      }
      if (!state) {  // behind a jump, and nothing leads here
        if (expected_.empty()) break;
        const Instruction between = DecodeInstruction(code_.subspan(at_));
        if (between.kind != Instruction::Kind::kPadding) return std::nullopt;
        at_ += between.length;  // alignment of a branch's target
        continue;
      }
      if (at_ - start_ > kMaxFunctionBytes || !Step(&*state)) return std::nullopt;
      if (ended_) state.reset();
      ended_ = false;
      if (at_ >= code_.size() && (state || !expected_.empty())) return std::nullopt;
    }
    if (!returns_) return std::nullopt;
    function_.start = vaddr_ + start_;
    function_.end = vaddr_ + at_;
    return std::move(function_);
  }
  size_t at() const { return at_; }

 private:
  bool Step(StackState* state) {
    const Instruction instruction = DecodeInstruction(code_.subspan(at_));
    if (instruction.kind == Instruction::Kind::kUnknown) return false;
    if (function_.rows.empty() || last_ != *state) {
      function_.rows.push_back({.vaddr = vaddr_ + at_, .state = StateOf(*state)});
      last_ = *state;
    }
    seen_.emplace(at_, *state);
    const size_t here = at_;
    at_ += instruction.length;
    switch (instruction.kind) {
      case Instruction::Kind::kReturn:
        returns_ = true;
        ended_ = true;
        return *state == StackState{};
      case Instruction::Kind::kLeaves:
        ended_ = true;
        return true;
      case Instruction::Kind::kJump:
        ended_ = true;
        return Branch(here, instruction.target, *state);
      case Instruction::Kind::kBranch:
        return Branch(here, instruction.target, *state);
      default:
        return Apply(instruction, state);
    }
  }

  bool Branch(size_t from, int64_t distance, const StackState& state) {
    const int64_t target = static_cast<int64_t>(from) + distance;
    const bool inside =
        target >= static_cast<int64_t>(start_) && target < static_cast<int64_t>(code_.size());
    if (!inside) return state == StackState{};  // a tail call
    const auto place = static_cast<size_t>(target);
    if (place < at_) {
      const auto seen = seen_.find(place);
      return seen != seen_.end() && seen->second == state;
    }
    // A tail call to the next function looks the same: it is then read as part of this one.
    const auto [known, is_new] = expected_.emplace(place, state);
    return is_new || known->second == state;
  }

  const std::span<const std::byte> code_;
  const uint64_t vaddr_;
  const size_t start_;
  size_t at_;
  bool ended_ = false;
  bool returns_ = false;
  StackState last_;
  std::map<size_t, StackState> expected_;  // targets of forward branches
  std::map<size_t, StackState> seen_;      // instructions so far
  CodeFunction function_;
};

// Behind nops, int3 and zeros.
size_t SkipPadding(std::span<const std::byte> code, size_t at) {
  while (at < code.size()) {
    if (code[at] == std::byte{0}) {
      ++at;
      continue;
    }
    const Instruction instruction = DecodeInstruction(code.subspan(at));
    if (instruction.kind != Instruction::Kind::kPadding) break;
    at += instruction.length;
  }
  return at;
}

}  // namespace

std::vector<CodeFunction> RowsFromCode(std::span<const std::byte> code, uint64_t vaddr,
                                       bool begins_function) {
  std::vector<CodeFunction> functions;
  size_t at = begins_function ? 0 : SkipPadding(code, 0);
  while (at < code.size()) {
    const bool begins = at == 0 ? begins_function : !functions.empty();
    if (!begins && (vaddr + at) % kFunctionAlignment != 0) break;
    FunctionReader reader(code, vaddr, at);
    std::optional<CodeFunction> function = reader.Run();
    if (!function) break;
    at = SkipPadding(code, reader.at());
    functions.push_back(*std::move(function));
  }
  return functions;
}

}  // namespace firewatch::symbolizer
