// SPDX-License-Identifier: Apache-2.0
// An independent reading of call frame information: libdw's. Its rules and ours are evaluated with
// the same invented registers and memory; where the caller's registers differ, one of us is wrong.
// Evaluating instead of comparing forms lets different ways to say the same agree.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "symbolizer/unwind/unwind_table.h"

namespace firewatch::symbolizer {

// The caller's frame as a rule gives it. `root`: there is none; the rest is then meaningless.
struct CallerRegisters {
  bool root = false;
  uint64_t cfa = 0;
  uint64_t return_address = 0;
  // Nothing: undefined, the caller may not need it.
  std::optional<uint64_t> rbp;
  std::optional<uint64_t> rbx;
};

// A row of libdw's.
struct OracleRow {
  uint64_t start = 0;  // virtual addresses
  uint64_t end = 0;
  std::optional<CallerRegisters> caller;  // nothing: a form that the evaluation does not know
};

class LibdwOracle {
 public:
  // `path` is opened again; .debug_frame is asked where .eh_frame has nothing.
  static absl::StatusOr<std::unique_ptr<LibdwOracle>> Open(const std::string& path);
  virtual ~LibdwOracle() = default;
  // The row that covers `vaddr`, evaluated there. Nothing when libdw has none.
  virtual std::optional<OracleRow> At(uint64_t vaddr) = 0;
};

// Our rule with the same registers and memory; nothing for FW_CFA_NONE.
std::optional<CallerRegisters> EvaluateRule(const UnwindTable::Rule& rule, uint64_t ip);

// True when they agree; what libdw calls undefined may be anything.
bool Agree(const CallerRegisters& oracle, const CallerRegisters& ours);
std::string Describe(const CallerRegisters& caller);
std::string Describe(const UnwindTable::Rule& rule);

}  // namespace firewatch::symbolizer
