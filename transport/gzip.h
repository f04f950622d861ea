// SPDX-License-Identifier: Apache-2.0
// gzip for HTTP answers.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace firewatch::transport {

// One gzip member. Level 1 to 9.
std::string Gzip(std::string_view bytes, int level);

// Whether an Accept-Encoding header takes gzip ("gzip", "*", x-gzip; a weight of 0 refuses).
bool AcceptsGzip(std::string_view accept_encoding);

// Text-like types that shrink: text/*, JSON, JavaScript, SVG, XML, wasm. Parameters are ignored.
bool IsCompressible(std::string_view content_type);

}  // namespace firewatch::transport
