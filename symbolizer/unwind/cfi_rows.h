// SPDX-License-Identifier: Apache-2.0
// The state machine of call frame instructions: one FDE to rows (address -> where the CFA, the
// return address, rbp and rbx are). DWARF 5, section 6.4.2.
//
// Of the 17 columns three are kept: the return address, rbp and rbx; rules of callers are based on
// rsp (which is the CFA) and these. Instructions for other columns are read and forgotten.
// Expressions are looked at once, when they are set, and only the forms that compilers, linkers and
// libraries use are understood: linear ones (reg + n, *(reg + n) + m) and that of a PLT.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "symbolizer/unwind/cfi_reader.h"

namespace firewatch::symbolizer {

// A register's rule, or what an expression computes.
struct CfiRule {
  enum class Kind : uint8_t {
    kUnspecified,  // no instruction named it
    kUndefined,
    kSame,
    kAtCfa,       // saved at CFA + offset
    kRegister,    // in register `reg`
    kAtRegister,  // saved at reg + offset (an expression)
    kOther,       // nothing of these
  };
  Kind kind = Kind::kUnspecified;
  uint8_t reg = 0;
  int64_t offset = 0;
  friend bool operator==(const CfiRule&, const CfiRule&) = default;
};

struct CfaRule {
  enum class Kind : uint8_t {
    kUnspecified,
    kOffset,  // reg + offset
    kDeref,   // *(reg + offset) + addend
    kPlt,     // rsp + 8 + ((ip & 15) >= offset ? 8 : 0)
    kOther,
  };
  Kind kind = Kind::kUnspecified;
  uint8_t reg = 0;
  int64_t offset = 0;
  int64_t addend = 0;
  friend bool operator==(const CfaRule&, const CfaRule&) = default;
};

struct CfiState {
  CfaRule cfa;
  CfiRule return_address;
  CfiRule rbp;
  CfiRule rbx;
  friend bool operator==(const CfiState&, const CfiState&) = default;
};

struct CfiRow {
  uint64_t vaddr = 0;  // from here to the next row, or to the end of the FDE
  CfiState state;
};

inline constexpr size_t kMaxRememberedStates = 256;
inline constexpr size_t kMaxRowsPerFde = size_t{1} << 20;

// Runs the CIE's own instructions, once for all its FDEs: a hostile CIE as long as the section with
// many FDEs would make the work quadratic. kNone, or why not.
CfiReason RunCie(const CfiSection& section, const Cie& cie, CfiState* initial);

// Appends the rows of one FDE: the first one at its start, ascending, none past its end; neighbours
// may be equal. On refusal what was appended is to be dropped.
CfiReason RunFde(const CfiSection& section, const Cie& cie, const CfiState& initial, const Fde& fde,
                 std::vector<CfiRow>* rows);

// What expressions compute; kOther when it is nothing that we can say.
CfaRule CfaOfExpression(std::span<const std::byte> expression);
CfiRule PlaceOfExpression(std::span<const std::byte> expression);

}  // namespace firewatch::symbolizer
