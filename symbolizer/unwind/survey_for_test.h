// SPDX-License-Identifier: Apache-2.0
// Unwind tables of all the ELF files of a machine: how they come out, and whether libdw reads the
// same. For unwind_scan and for the test that compares.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "symbolizer/unwind/table_builder.h"
#include "symbolizer/unwind/unwind_table.h"

namespace firewatch::symbolizer {

// Regular files that begin like ELF files for this machine, sorted; links are not followed.
std::vector<std::string> ListElfFiles(const std::vector<std::string>& directories);

struct BuiltTable {
  UnwindBuild build;
  std::string bytes;       // the table file
  UnwindTable table;       // a view of it
  double cpu_seconds = 0;  // from opening the file to the bytes
};
absl::StatusOr<BuiltTable> BuildTableOf(const std::string& path);

struct OracleCheck {
  uint64_t files = 0;
  uint64_t functions = 0;
  uint64_t rows = 0;          // of libdw's, compared at their first, middle and last byte
  uint64_t rows_unsaid = 0;   // no rule of ours (rows_no_rule), nothing compared
  uint64_t rows_unknown = 0;  // libdw's answer is a form that the evaluation does not know
  std::vector<std::string> disagreements;
};

// Compares up to `per_file` functions of each file, in an order drawn with `seed`, until
// `functions` have been compared.
OracleCheck CompareWithLibdw(const std::vector<std::string>& files, uint64_t functions,
                             uint64_t per_file, uint64_t seed);

}  // namespace firewatch::symbolizer
