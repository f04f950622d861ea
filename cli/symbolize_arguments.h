// SPDX-License-Identifier: Apache-2.0
// The command line of `firewatch symbolize`: llvm-symbolizer's flags in all their spellings, and a
// few of ours. Pure text.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/symbolize_format.h"

namespace firewatch::cli {

enum class FunctionNames : uint8_t { kNone, kShort, kLinkage };
// kRelative: as the line table has them, without the compilation directory.
enum class FilePaths : uint8_t { kWhole, kRelative, kBaseNames };

struct SymbolizeOptions {
  std::string module;                  // --exe; "": each line names its file
  std::string build_id;                // --build-id, lower case; not together with `module`
  std::vector<std::string> addresses;  // none: lines of standard input
  SymbolizeStyle style = SymbolizeStyle::kLlvm;
  FunctionNames functions = FunctionNames::kLinkage;
  FilePaths paths = FilePaths::kWhole;
  bool inlines = true;
  bool demangle = true;
  bool print_addresses = false;
  bool pretty = false;
  bool verbose = false;
  uint32_t source_lines = 0;
  uint64_t adjust_vma = 0;                     // added to each address
  std::vector<std::string> debug_directories;  // before /usr/lib/debug
  std::string dwp;
  // Ours.
  std::string cache_directory;  // of saved indexes; "": the user's
  bool use_cache = true;
  bool build_index = false;   // before the first answer, however few are asked for
  bool file_offsets = false;  // addresses are offsets in the file, as in Firewatch's profiles
  bool details = false;       // JSON: flags and aliases of frames
  bool lines = true;          // false: symbol tables alone
  unsigned threads = 0;       // of index building; 0: as many as CPUs
  bool help = false;
  bool version = false;
};

// Arguments after "symbolize". Errors (InvalidArgument) are a line for the user; exit code 1.
absl::StatusOr<SymbolizeOptions> ParseSymbolizeArguments(
    std::span<const std::string_view> arguments);

std::string_view SymbolizeHelp();

}  // namespace firewatch::cli
