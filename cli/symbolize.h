// SPDX-License-Identifier: Apache-2.0
// `firewatch symbolize`: functions, inlined ones too, and lines of addresses of ELF files; a
// swap-in for llvm-symbolizer. What differs from it is listed in README.md.
#pragma once

#include <span>
#include <string_view>

namespace firewatch::cli {

// `arguments`: after "symbolize". Reads standard input when they hold no address, and answers each
// line before it waits for the next one. Returns the exit code: 1 when the arguments or the file of
// --exe are no good, else 0; a line that cannot be read is answered with "??".
int RunSymbolize(std::span<const std::string_view> arguments);

}  // namespace firewatch::cli
