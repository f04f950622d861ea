// SPDX-License-Identifier: Apache-2.0
// One line, or one argument, of `firewatch symbolize`: what is asked for. The grammar is
// llvm-symbolizer's (19), texts of errors too; pure text, no file is touched.
//
//   [CODE|DATA|FRAME ] [FILE:|BUILDID:]FILE ADDRESS [ignored]
//
// Without FILE: or BUILDID: the file is left out when one was given by --exe or --build-id. FILE
// may stand in double or single quotes. ADDRESS is 0x1a2b, 0b1101, 0o17, 017 or 42, or
// SYMBOL[+OFFSET].
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace firewatch::cli {

struct SymbolizeRequest {
  enum class Kind : uint8_t { kCode, kData, kFrame };
  Kind kind = Kind::kCode;
  std::string module;    // as the user wrote it; of a build id its upper-case digits
  std::string build_id;  // lower-case digits; then `module` is no path
  std::string symbol;    // "": an address is asked for
  // The address, or what is added to the symbol; nothing when the line could not be read.
  std::optional<uint64_t> offset;
};

// `line` has no end-of-line bytes. `module` and `build_id` are what the command line gave (""
// none); they are what every line is about. On errors (InvalidArgument, with llvm-symbolizer's
// words) *request holds what was understood so far, and no offset: the caller answers "unknown" for
// it.
absl::Status ParseSymbolizeLine(std::string_view line, std::string_view module,
                                std::string_view build_id, SymbolizeRequest* request);

// 0x1a, 0b1, 0o7, 017, 42; the whole text, at most 64 bits. Nothing when it is none of these.
std::optional<uint64_t> ParseNumber(std::string_view text);

// Lower-case digits of a build id, an odd one completed by a 0 in front; "" when it is none.
std::string NormalizeBuildId(std::string_view text);

}  // namespace firewatch::cli
