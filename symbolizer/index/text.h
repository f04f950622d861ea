// SPDX-License-Identifier: Apache-2.0
// Names come from strangers and end in pprof strings (UTF-8 by protobuf's rule), terminals and web
// pages: what is not printable UTF-8 is replaced before it gets into an index.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace firewatch::symbolizer {

// Length of the well-formed, printable UTF-8 sequence that `text` starts with; 0 when there is
// none (control characters, bytes that are not UTF-8, overlong forms, surrogates).
size_t PrintableSequence(std::string_view text);

bool IsPrintableUtf8(std::string_view text);

// `text` with each offending byte replaced by '?'.
std::string MakePrintable(std::string_view text);

}  // namespace firewatch::symbolizer
